"""Training targets of associative embedding: Gaussian heatmaps and the places where tags are read.

Coordinates are heatmap pixels. A keypoint belongs to the pixel ``int(x), int(y)`` (truncation towards zero, as in
mmpose 0.x, so -0.4 still counts as pixel 0).
"""

import numpy as np


def gaussian_heatmaps(
    keypoints: np.ndarray, visible: np.ndarray, heatmap_size: tuple[int, int], sigma: float
) -> np.ndarray:
    """Draw one Gaussian of peak 1 per visible keypoint; where people overlap the larger value stays.

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
    squared = offsets[:, None] ** 2 + offsets[None, :] ** 2
    window = np.exp(-squared / (2 * sigma**2)).astype(np.float32)

    # with a margin for the windows of keypoints at the border
    heatmaps = np.zeros((keypoints.shape[1], height + 2 * radius, width + 2 * radius), dtype=np.float32)
    pixels, inside = _pixels(keypoints, visible, heatmap_size)
    for person, keypoint in zip(*np.nonzero(inside)):
        x, y = pixels[person, keypoint]
        patch = heatmaps[keypoint, y : y + len(window), x : x + len(window)]
        np.maximum(patch, window, out=patch)
    return np.ascontiguousarray(heatmaps[:, radius : radius + height, radius : radius + width])


def keypoint_indices(keypoints: np.ndarray, visible: np.ndarray, heatmap_size: tuple[int, int]) -> np.ndarray:
    """Where the tag of every keypoint of every person is read.

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
    """Integer pixel [N, K, 2] of every keypoint, and whether it is visible and inside [N, K]."""
    pixels = np.trunc(keypoints).astype(np.int64)
    inside = (visible > 0) & (pixels >= 0).all(-1) & (pixels < np.asarray(heatmap_size)).all(-1)
    return pixels, inside
