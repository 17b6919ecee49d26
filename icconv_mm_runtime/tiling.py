"""Cuts images into overlapping tiles, and joins the predictions for the tiles."""

import math
from collections.abc import Callable, Sequence

import numpy as np

from icconv_mm_runtime.results import Predictions

_IOU = 0.5  # boxes of one class that overlap more are one object
Corner = tuple[int, int]


def tile_corners(size: Sequence[int], tile: int, overlap: float = 0.2) -> list[Corner]:
    """Returns top and left of squares of ``tile`` pixels that cover an image and overlap by at least a fraction."""

    def starts(length: int) -> list[int]:
        if length <= tile:
            return [0]
        count = math.ceil((length - tile) / (tile * (1 - overlap))) + 1
        return [round(i * (length - tile) / (count - 1)) for i in range(count)]

    return [(top, left) for top in starts(size[0]) for left in starts(size[1])]


def joined_boxes(parts: Sequence[Predictions], corners: Sequence[Corner], size: Sequence[int]) -> Predictions:
    """Joins the boxes of all tiles; of boxes of one class that overlap by more than half, keeps the best score."""
    moved = [{**part, 'boxes': part['boxes'] + np.float32([x, y, x, y])} for part, (y, x) in zip(parts, corners)]
    whole = {name: np.concatenate([part[name] for part in moved]) for name in ('boxes', 'scores', 'labels')}
    order = np.argsort(-whole['scores'], kind='stable')
    boxes, labels = whole['boxes'][order], whole['labels'][order]
    kept = np.ones(len(order), bool)
    for i in range(len(order)):
        if kept[i]:
            rest = np.flatnonzero(kept[i + 1 :] & (labels[i + 1 :] == labels[i])) + i + 1
            kept[rest] = _overlaps(boxes[i], boxes[rest]) <= _IOU
    return {name: values[order[kept]] for name, values in whole.items()}


def _overlaps(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Returns the intersection over union of a box with each of the others."""
    sides = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    common = sides.clip(min=0).prod(1)
    areas = [np.prod(each[..., 2:] - each[..., :2], axis=-1) for each in (box, others)]
    return common / np.maximum(areas[0] + areas[1] - common, np.finfo(np.float32).tiny)


def joined_maps(parts: Sequence[Predictions], corners: Sequence[Corner], size: Sequence[int]) -> Predictions:
    """Joins the segmentation maps of all tiles; where two overlap, each fills the half farther from its edge."""
    whole = np.zeros(size, parts[0]['seg_map'].dtype)
    tops, lefts = (sorted({corner[axis] for corner in corners}) for axis in (0, 1))
    for part, (top, left) in zip(parts, corners):
        own = part['seg_map']
        y, x = _seam(tops, top, own.shape[0]), _seam(lefts, left, own.shape[1])
        whole[top + y :, left + x :][: own.shape[0] - y, : own.shape[1] - x] = own[y:, x:]
    return {'seg_map': whole}


def _seam(starts: Sequence[int], start: int, length: int) -> int:
    """Returns the pixel from which a tile replaces the tile before it: half of what both show."""
    place = starts.index(start)
    return (starts[place - 1] + length - start) // 2 if place else 0


JOINED: dict[str, Callable[[Sequence[Predictions], Sequence[Corner], Sequence[int]], Predictions]] = {
    'detection': joined_boxes,
    'semantic': joined_maps,
}
