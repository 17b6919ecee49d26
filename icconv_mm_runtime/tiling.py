"""Cuts images into overlapping tiles, and joins the predictions for the tiles."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from icconv_mm_runtime.results import Arrays

_IOU = 0.5  # boxes of one class in different tiles that overlap more are one object
_NEAR = 1.0  # pixels from the edge of a tile that cuts a box
_PAIRS = 1 << 22  # of boxes that are compared at once
Corner = tuple[int, int]


def tile_corners(shape: Sequence[int], tile: int, overlap: float = 0.2) -> list[Corner]:
    """Returns top and left of squares of ``tile`` pixels that cover an image and overlap by at least a fraction."""

    def starts(length: int) -> list[int]:
        if length <= tile:
            return [0]
        count = math.ceil((length - tile) / (tile * (1 - overlap))) + 1
        return [round(i * (length - tile) / (count - 1)) for i in range(count)]

    return [(top, left) for top in starts(shape[0]) for left in starts(shape[1])]


def joined_boxes(parts: Sequence[Arrays], corners: Sequence[Corner], shape: Sequence[int], tile: int) -> Arrays:
    """Joins the boxes of all tiles, the best score first: an object that several tiles show is there once."""
    moved = [{**part, 'boxes': part['boxes'] + np.float32([x, y, x, y])} for part, (y, x) in zip(parts, corners)]
    whole = {name: np.concatenate([part[name] for part in moved]) for name in ('boxes', 'scores', 'labels')}
    counts = [len(part['boxes']) for part in parts]
    kept = distinct_boxes(whole['boxes'], whole['scores'], whole['labels'], counts, corners, shape, tile)
    return {name: values[kept] for name, values in whole.items()}


def distinct_boxes(
    boxes: np.ndarray,
    scores: np.ndarray,
    labels: np.ndarray,
    counts: Sequence[int],
    corners: Sequence[Corner],
    shape: Sequence[int],
    tile: int,
) -> np.ndarray:
    """Returns the indices of boxes that show different objects, the best score first.

    A box repeats one of its class in another tile if both overlap by more than half where its own tile shows them. Of
    two, the one that no edge of its tile cuts stays, or the one with the better score, or the larger of two that are
    cut. An object is in a tile once: boxes of one tile, which the network has told apart, never replace each other, and
    a box replaces one of each other tile at most. So the objects do not depend on the tiles if each is whole in one.

    Args:
        boxes: Corners in pixels of the image [n, 4], tile by tile.
        scores: [n].
        labels: Their classes [n].
        counts: Number of boxes of each tile.
        corners: Top and left of each tile.
        shape: Height and width of the image.
        tile: Side of the tiles.
    """
    height, width = shape
    edges = np.array([[x, y, min(x + tile, width), min(y + tile, height)] for y, x in corners], np.float64)
    numbers = np.repeat(np.arange(len(counts)), counts)
    inner = np.where(edges == [0, 0, width, height], [-np.inf, -np.inf, np.inf, np.inf], edges)[numbers]
    is_cut = (boxes[:, :2] < inner[:, :2] + _NEAR).any(1) | (boxes[:, 2:] > inner[:, 2:] - _NEAR).any(1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    order = np.lexsort((np.where(is_cut, -areas, -scores), is_cut))
    boxes, numbers, labels = boxes[order].astype(np.float64), numbers[order], labels[order]
    earlier, later, overlaps = _repeated(boxes, numbers, labels, edges, width)
    kept, replaced = np.ones(len(order), bool), set()
    best_first = np.lexsort((earlier, later, -overlaps))
    for one, other in zip(earlier[best_first].tolist(), later[best_first].tolist()):
        pairs = {(one, numbers[other]), (other, numbers[one])}
        if kept[one] and kept[other] and not replaced & pairs:
            kept[other] = False
            replaced |= pairs
    chosen = order[kept]
    return chosen[np.argsort(-scores[chosen], kind='stable')]


def _repeated(
    boxes: np.ndarray, numbers: np.ndarray, labels: np.ndarray, edges: np.ndarray, width: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns pairs of a box and a later one that repeats it, and how much they overlap in the tile of the later."""
    shift = labels * 8.0 * (width + 1)  # separates the classes
    pairs = [(np.zeros(0, int), np.zeros(0, int), np.zeros(0))]
    for tile, (left, top, right, bottom) in enumerate(edges):
        inside, others = np.flatnonzero(numbers == tile), np.flatnonzero(numbers != tile)
        seen = boxes[others].clip([left, top] * 2, [right, bottom] * 2)
        is_seen = (seen[:, 2:] > seen[:, :2]).all(1)
        others, seen = others[is_seen], seen[is_seen]
        by_left = np.argsort(seen[:, 0] + shift[others], kind='stable')
        others, seen = others[by_left], seen[by_left]
        starts, sides, at = (
            seen[:, 0] + shift[others],
            boxes[inside, 2] - boxes[inside, 0],
            boxes[inside, 0] + shift[inside],
        )
        # of boxes that share more than half, each begins less than a width before and half a width behind the other
        first, last = np.searchsorted(starts, at - sides), np.searchsorted(starts, at + sides / 2, 'right')
        for part in np.array_split(np.arange(len(inside)), max(1, (last - first).clip(0).sum() // _PAIRS)):
            many = (last - first)[part].clip(0)
            ends = np.cumsum(many)
            indices = np.arange(many.sum()) + np.repeat(first[part] - ends + many, many)
            later, earlier = np.repeat(inside[part], many), others[indices]
            overlaps = _overlaps(boxes[later], seen[indices])
            is_repeated = (overlaps > _IOU) & (earlier < later)
            pairs.append((earlier[is_repeated], later[is_repeated], overlaps[is_repeated]))
    return tuple(map(np.concatenate, zip(*pairs)))


def _overlaps(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Returns the intersection over union of each box with the other of its pair."""
    common = (np.minimum(boxes[:, 2:], others[:, 2:]) - np.maximum(boxes[:, :2], others[:, :2])).clip(min=0).prod(1)
    areas = [(boxes_of_side[:, 2:] - boxes_of_side[:, :2]).prod(1) for boxes_of_side in (boxes, others)]
    return common / np.maximum(areas[0] + areas[1] - common, np.finfo(np.float32).tiny)


def joined_maps(parts: Sequence[Arrays], corners: Sequence[Corner], shape: Sequence[int], tile: int) -> Arrays:
    """Joins the segmentation maps of all tiles; where two overlap, each fills the half farther from its edge."""
    whole = np.zeros(shape, parts[0]['seg_map'].dtype)
    tops, lefts = (sorted({corner[axis] for corner in corners}) for axis in (0, 1))
    for part, (top, left) in zip(parts, corners):
        seg_map = part['seg_map']
        y, x = _seam(tops, top, seg_map.shape[0]), _seam(lefts, left, seg_map.shape[1])
        whole[top + y :, left + x :][: seg_map.shape[0] - y, : seg_map.shape[1] - x] = seg_map[y:, x:]
    return {'seg_map': whole}


def _seam(starts: Sequence[int], start: int, length: int) -> int:
    """Returns the pixel from which a tile replaces the tile before it: half of what both show."""
    row = starts.index(start)
    return (starts[row - 1] + length - start) // 2 if row else 0


JOINED: dict[str, Callable[[Sequence[Arrays], Sequence[Corner], Sequence[int], int], Arrays]] = {
    'detection': joined_boxes,
    'semantic': joined_maps,
}


def tiles_of(image: np.ndarray, tile: int) -> Iterator[np.ndarray]:
    """Yields the tiles of an image [H, W, 3] at :func:`tile_corners`."""
    for top, left in tile_corners(image.shape[:2], tile):
        yield np.ascontiguousarray(image[top : top + tile, left : left + tile])


def join_tiles(
    tasks: Mapping[str, Mapping[str, Any]], parts: Sequence[Mapping[str, Arrays]], shape: Sequence[int], tile: int
) -> dict[str, Arrays]:
    """Returns the predictions of each task for an image of ``shape`` from those for its tiles.

    Args:
        tasks: The description of each task by name; its kind is one of :data:`JOINED`.
        parts: The predictions of each task for each of :func:`tiles_of`.
        shape: Height and width of the image.
        tile: Side of the tiles.
    """
    corners = tile_corners(shape, tile)
    return {
        name: JOINED[task['kind']]([part[name] for part in parts], corners, shape, tile) for name, task in tasks.items()
    }
