"""Regions that take part in the heatmap loss: all but crowds and people without keypoints."""

from collections.abc import Sequence

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from icconv_mm.errors import InputError
from icconv_mm.tasks.pose.geometry import check_source

_FLIPPED_AXES = {'horizontal': (1,), 'vertical': (0,), 'diagonal': (0, 1)}


def ignored_region(segmentations: Sequence, image_size: tuple[int, int]) -> np.ndarray:
    """Union of COCO segmentations.

    Args:
        segmentations: Lists of polygons, run lengths (compressed or not), or None where nothing is annotated. Polygons
            of fewer than three points have no area and are skipped.
        image_size: ``(width, height)``.

    Returns:
        [height, width], uint8, 1 inside.
    """
    width, height = image_size
    parts = []
    for segmentation in segmentations:
        if not isinstance(segmentation, dict):
            polygons = [polygon for polygon in segmentation or () if len(polygon) >= 6]
            parts += coco_mask.frPyObjects(polygons, height, width) if polygons else []
        elif isinstance(segmentation['counts'], str | bytes):
            parts.append(segmentation)
        else:
            parts.append(coco_mask.frPyObjects(segmentation, height, width))
    return coco_mask.decode(coco_mask.merge(parts)) if parts else np.zeros((height, width), dtype=np.uint8)


def valid_mask(
    segmentations: Sequence,
    image_size: tuple[int, int],
    matrix: np.ndarray,
    heatmap_size: tuple[int, int],
    flip: str | None = None,
) -> np.ndarray:
    """Heatmap pixels that count in the loss: inside the image and outside the ignored people.

    Args:
        segmentations: COCO segmentations of the people to ignore, in image coordinates: see :func:`ignored_region`.
        image_size: ``(width, height)`` of the image as loaded.
        matrix: 2 x 3, image coordinates to heatmap coordinates, before the flip.
        heatmap_size: ``(W, H)``.
        flip: Direction in which the image was mirrored after the affine transform: 'horizontal', 'vertical',
            'diagonal' (both) or None.

    Returns:
        [H, W], bool.

    Raises:
        InputError: For another direction, or a side of the image above 32766 pixels.
    """
    if flip is not None and flip not in _FLIPPED_AXES:
        raise InputError(f'flip direction must be one of {", ".join(_FLIPPED_AXES)} or None, got {flip!r}')
    check_source(image_size)
    valid = (1 - ignored_region(segmentations, image_size)) * np.uint8(255)
    warped = cv2.warpAffine(valid, np.asarray(matrix, dtype=np.float64), heatmap_size, flags=cv2.INTER_LINEAR)
    if flip is not None:
        warped = np.flip(warped, _FLIPPED_AXES[flip])
    return warped > 127
