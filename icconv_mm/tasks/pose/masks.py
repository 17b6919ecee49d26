"""Regions that take part in the heatmap loss: all but crowds and people without keypoints."""

from collections.abc import Sequence

import cv2
import numpy as np
from pycocotools import mask as coco_mask


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
    region = np.zeros((height, width), dtype=np.uint8)
    for segmentation in segmentations:
        if isinstance(segmentation, dict):
            compressed = isinstance(segmentation['counts'], str | bytes)
            parts = [segmentation if compressed else coco_mask.frPyObjects(segmentation, height, width)]
        else:
            polygons = [polygon for polygon in segmentation or () if len(polygon) >= 6]
            parts = coco_mask.frPyObjects(polygons, height, width) if polygons else []
        for part in parts:
            region |= coco_mask.decode(part)
    return region


def valid_mask(
    segmentations: Sequence,
    image_size: tuple[int, int],
    matrix: np.ndarray,
    heatmap_size: tuple[int, int],
    flip: bool = False,
) -> np.ndarray:
    """Heatmap pixels that count in the loss: inside the image and outside the ignored people.

    Args:
        segmentations: Of the people to ignore, in image coordinates, see :func:`ignored_region`.
        image_size: ``(width, height)`` of the image as loaded.
        matrix: 2 x 3, image coordinates to heatmap coordinates, before the flip.
        heatmap_size: ``(W, H)``.
        flip: Whether the image was mirrored after the affine transform.

    Returns:
        [H, W], bool.
    """
    valid = (1 - ignored_region(segmentations, image_size)) * np.uint8(255)
    warped = cv2.warpAffine(valid, np.asarray(matrix, dtype=np.float64), heatmap_size, flags=cv2.INTER_LINEAR)
    if flip:
        warped = warped[:, ::-1]
    return warped > 127
