"""The size that images are trained in: by the images, their objects, and the time."""

import numpy as np

from icconv_mm.app.training import memory

STRIDE = 32  # sides are its multiples
TRAINED = 0.8  # share of a time without validations and the report
_SIDES = (128, 640)  # of the default size; up to _FINE if objects would be smaller than _LEAST pixels
_FINE, _LEAST = 1024, 10
_IN_TIME = 192, 16  # least size that a time chooses, and the pixels that three of four objects keep
_SEEN = 4000  # images; fewer in a larger size teach less: docs/measurements/2026-12-01-weights.md


def default_size(sizes: np.ndarray, boxes: np.ndarray, task: str) -> int:
    """Returns the pixels of the longer side: that of most images, within limits; more if objects would be too small.

    Args:
        sizes: Width and height of images, [n, 2].
        boxes: Width and height of objects as fractions of the longer side, [m, 2].
        task: The task.
    """
    if task == 'classification':
        return 224
    side = float(np.median(sizes.max(1)))
    low, high = _SIDES
    if len(boxes) and (least := float(np.percentile(np.sqrt(boxes.prod(1)), 5))) > 0:
        high = int(np.clip(_LEAST / least, high, _FINE))
    return int(-(-np.clip(side, low, high) // STRIDE) * STRIDE)


def training_size(sizes: np.ndarray, longer: int) -> tuple[int, int]:
    """Returns width and height in the images' proportion, multiples of 32; the longer is at least ``longer``."""
    ratio = float(np.median(sizes[:, 0] / sizes[:, 1]))
    sides = (longer, longer / ratio) if ratio >= 1 else (longer * ratio, longer)
    return tuple(int(-(-max(side, STRIDE) // STRIDE) * STRIDE) for side in sides)


def size_in_time(
    network: dict, sizes: np.ndarray, boxes: np.ndarray, task: str, seconds: float
) -> tuple[int | None, str]:
    """Returns the largest size in which enough images are seen in a time, and why, as the end of a line.

    It is None where the time does not choose it: on a GPU, and for tasks other than ``'detection'`` and ``'instance'``.

    Args:
        network: The backbone's config.
        sizes, boxes, task: As of :func:`default_size`, whose result is the largest.
        seconds: The time.
    """
    usual = default_size(sizes, boxes, task)
    least, pixels = _IN_TIME
    if len(boxes) and (side := float(np.percentile(np.sqrt(boxes.prod(1)), 25))) > 0:
        least = max(least, pixels / side)
    candidates = [usual, *(size for size in range(usual - STRIDE, 0, -STRIDE) if size >= least)]
    shapes = (training_size(sizes, size) for size in candidates)
    images = memory.training_times(network, *shapes) if task in ('detection', 'instance') else None
    if images is None:
        return None, ''
    enough = [_SEEN * image / TRAINED for image in images]  # seconds
    size = next((size for size, needed in zip(candidates, enough) if needed <= seconds), candidates[-1])
    return size, '' if size == usual else f'; --size {usual} would need about {enough[0] / 60:.0f} minutes'
