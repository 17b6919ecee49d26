"""Pieces of the COCO results format."""

from collections.abc import Iterable

import numpy as np


def xywh(box: Iterable[float]) -> list[float]:
    """Corners (x1, y1, x2, y2) to COCO's (x, y, width, height), rounded to a thousandth of a pixel."""
    x1, y1, x2, y2 = (float(value) for value in box)
    return [round(value, 3) for value in (x1, y1, x2 - x1, y2 - y1)]


def run_lengths(mask: np.ndarray) -> dict:
    """A boolean mask [H, W] as compressed run lengths that JSON can hold."""
    from pycocotools.mask import encode

    rle = encode(np.asfortranarray(mask, dtype=np.uint8))
    return {'size': [int(side) for side in rle['size']], 'counts': rle['counts'].decode('ascii')}
