"""Targets of the losses: Gaussian heatmaps, the pixels where tags are read, and the mask of counted pixels.

Coordinates are heatmap pixels. A keypoint belongs to the pixel ``int(x), int(y)`` (truncation towards zero, as in
mmpose 0.x, so -0.4 still counts as pixel 0).
"""

from collections.abc import Sequence

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from icconv_mm.errors import InputError
from icconv_mm.tasks.pose.multiscale import check_source


def gaussian_heatmaps(
    keypoints: np.ndarray, visible: np.ndarray, heatmap_size: tuple[int, int], sigma: float
) -> np.ndarray:
    """Draws one Gaussian of peak 1 per visible keypoint; where people overlap, the larger value stays.

    Args:
        keypoints: [N, K, 2], ``(x, y)`` in heatmap pixels.
        visible: [N, K], a keypoint with a value above 0 is drawn.
        heatmap_size: ``(W, H)``.
        sigma: Standard deviation in heatmap pixels; the window reaches ``3 sigma + 1`` pixels from the centre.

    Returns:
        Heatmaps [K, H, W], float32.
    """
    width, height = heatmap_size
    radius = int(3 * sigma + 1)
    offsets = np.arange(-radius, radius + 1)
    window = np.exp(-(offsets[:, None] ** 2 + offsets[None, :] ** 2) / (2 * sigma**2)).astype(np.float32)

    # with a margin for the windows of keypoints at the border
    heatmaps = np.zeros((keypoints.shape[1], height + 2 * radius, width + 2 * radius), dtype=np.float32)
    pixels, inside = _pixels(keypoints, visible, heatmap_size)
    for person, keypoint in zip(*np.nonzero(inside)):
        x, y = pixels[person, keypoint]
        patch = heatmaps[keypoint, y : y + len(window), x : x + len(window)]
        np.maximum(patch, window, out=patch)
    return np.ascontiguousarray(heatmaps[:, radius : radius + height, radius : radius + width])


def keypoint_indices(keypoints: np.ndarray, visible: np.ndarray, heatmap_size: tuple[int, int]) -> np.ndarray:
    """Returns the index of the pixel where each keypoint's tag is read, for every person.

    Args:
        keypoints: [N, K, 2], ``(x, y)`` in heatmap pixels.
        visible: [N, K].
        heatmap_size: ``(W, H)``.

    Returns:
        [N, K, 2], int64: ``y * W + x`` and 1 if the keypoint is visible and inside the map; otherwise 0 and 0.
    """
    pixels, inside = _pixels(keypoints, visible, heatmap_size)
    flat = pixels[..., 1] * heatmap_size[0] + pixels[..., 0]
    return np.stack([np.where(inside, flat, 0), inside], axis=-1).astype(np.int64)


def _pixels(keypoints: np.ndarray, visible: np.ndarray, heatmap_size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Returns the integer pixel [N, K, 2] of every keypoint, and whether it is visible and inside [N, K]."""
    pixels = np.trunc(keypoints).astype(np.int64)
    inside = (visible > 0) & (pixels >= 0).all(-1) & (pixels < np.asarray(heatmap_size)).all(-1)
    return pixels, inside


_FLIPPED_AXES = {'horizontal': (1,), 'vertical': (0,), 'diagonal': (0, 1)}


def ignored_region(segmentations: Sequence, image_size: tuple[int, int]) -> np.ndarray:
    """Returns the union of COCO segmentations as a mask.

    Args:
        segmentations: Lists of polygons, RLE (compressed or not), or None if not annotated. Polygons of fewer than
            three points have no area and are skipped.
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
    """Returns the heatmap pixels that count in the loss: inside the image and outside the ignored people.

    Args:
        segmentations: COCO segmentations of the people to ignore, in image coordinates: see :func:`ignored_region`.
        image_size: ``(width, height)`` of the image as loaded.
        matrix: 2 x 3, image coordinates to heatmap coordinates, before the flip.
        heatmap_size: ``(W, H)``.
        flip: Direction in which the image was flipped after the affine transform: 'horizontal', 'vertical',
            'diagonal' (both) or None.

    Returns:
        [H, W], bool.

    Raises:
        InputError: If the direction is unknown, or a side of the image exceeds 32766 pixels.
    """
    if flip is not None and flip not in _FLIPPED_AXES:
        raise InputError(f'flip direction must be one of {", ".join(_FLIPPED_AXES)} or None, got {flip!r}')
    check_source(image_size)
    valid = (1 - ignored_region(segmentations, image_size)) * np.uint8(255)
    warped = cv2.warpAffine(valid, np.asarray(matrix, dtype=np.float64), heatmap_size, flags=cv2.INTER_LINEAR)
    if flip is not None:
        warped = np.flip(warped, _FLIPPED_AXES[flip])
    return warped > 127
