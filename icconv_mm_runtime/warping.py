"""Scaling and shifting of images with one result under every release of OpenCV.

OpenCV 4 rounds positions to 1/32 pixel, OpenCV 5 does not: a network would get other pixels where it serves than where
it was tested. The pixels here are those of OpenCV 4, with which mmpose trains and tests.
"""

from collections.abc import Sequence

import numpy as np

_LINES = 32  # at a time: they stay in the cache


def warp_matrix(size: Sequence[int], center: Sequence[float], extent: Sequence[float]) -> np.ndarray:
    """Returns the 2 x 3 matrix from pixels of the image to those of a level of ``size``."""
    ratio = np.divide(size, extent)
    return np.column_stack([np.diag(ratio), np.divide(size, 2) - ratio * center])


def warp(image: np.ndarray, matrix: np.ndarray, size: Sequence[int], value: Sequence[float] = (0, 0, 0)) -> np.ndarray:
    """Returns the pixels of OpenCV 4's bilinear ``warpAffine``, for a matrix that neither rotates nor shears.

    Args:
        image: [H, W, 3], uint8.
        matrix: [2, 3], from pixels of the image to those of the result.
        size: (width, height) of the result.
        value: Color around the image.
    """
    rows = image.reshape(len(image), -1)
    # the inverse, the order of operations and the roundings are OpenCV's
    scale = matrix[(1, 0), (1, 0)] * (1 / (matrix[0, 0] * matrix[1, 1]))
    start = -scale * matrix[:, 2]
    x, y = (factor * np.arange(side) for factor, side in zip(scale, size))
    left, right = _neighbors(np.rint(x * 1024) + np.rint(start[0] * 1024), image.shape[1])
    top, bottom = _neighbors(np.rint((y + start[1]) * 1024), image.shape[0])
    columns = [(3 * index[:, None] + np.arange(3)).ravel() for index, _ in (left, right)]
    across = [np.repeat(weight, 3) for _, weight in (left, right)]
    down = [weight[:, None] for _, weight in (top, bottom)]
    color = np.tile(np.rint(value).astype(np.int32), size[0])
    beside, beyond = 32 * color * (32 - sum(across)), color * sum(across)  # parts of the color in a pixel
    result = np.empty((size[1], 3 * size[0]), np.uint8)
    for first in range(0, size[1], _LINES):
        lines = slice(first, first + _LINES)
        above, below = (rows[index[lines]] for index, _ in (top, bottom))
        weights = [weight[lines].astype(np.uint16) for weight in down]
        total = beside + (32 - sum(down)[lines]) * beyond + 512
        for column, weight in zip(columns, across):
            total += weight * (above.take(column, 1) * weights[0] + below.take(column, 1) * weights[1])
        result[lines] = total >> 10
    return result.reshape(size[1], size[0], 3)


def _neighbors(positions: np.ndarray, length: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Returns both neighbours of each position (in 1/1024 pixel), and their weights of 32, 0 outside the image."""
    positions = (positions.astype(np.int64) + 16) >> 5
    first, share = positions >> 5, positions & 31
    weighted = ((first, 32 - share), (first + 1, share))
    return [
        (index.clip(0, length - 1), (weight * ((index >= 0) & (index < length))).astype(np.int32))
        for index, weight in weighted
    ]
