"""Groups heatmap peaks into people by tag (associative embedding, https://arxiv.org/abs/1611.05424).

Non-maximum suppression, candidates, grouping by tag, sub-pixel shift, refinement: the steps and their order are those
of mmpose 0.x (``HeatmapParser``), which the published figures were measured with; docs/pose.md lists the deliberate
differences.
"""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from icconv_mm_runtime import limits

# Head and torso before limbs, so that a person exists before its wrists and ankles are assigned.
COCO_KEYPOINT_ORDER = (0, 1, 2, 3, 4, 5, 6, 11, 12, 7, 8, 9, 10, 13, 14, 15, 16)
_BLOCK = 16  # side of the blocks that the search for missing keypoints can skip


class Grouping(NamedTuple):
    """How people are grouped; the fields are those of ``icconv_mm.tasks.pose.group_keypoints``, which checks them."""

    max_num_people: int
    nms_kernel: int
    detection_threshold: float
    tag_threshold: float
    ignore_too_much: bool
    adjust: bool
    refine: bool
    keypoint_order: Sequence[int] | None = None


def group_people(heatmaps: np.ndarray, tags: np.ndarray, rule: Grouping) -> tuple[np.ndarray, np.ndarray]:
    """Converts ``[K, H, W]`` and ``[L, K, H, W]`` to people ``[P, K, 3]``, as (x, y, score), and their scores ``[P]``.

    Raises:
        ValueError: There are more than ``limits.MAX_PEAKS`` peaks.
    """
    count, order = len(heatmaps), rule.keypoint_order
    if order is None:
        order = COCO_KEYPOINT_ORDER if count == len(COCO_KEYPOINT_ORDER) else range(count)
    options = rule.max_num_people, rule.nms_kernel, rule.detection_threshold
    peaks = [_peaks(heatmaps[k], tags[:, k], *options) for k in range(count)]
    if (people_count := sum(len(scores) for _, scores, _ in peaks)) > limits.MAX_PEAKS:
        raise ValueError(
            f'{people_count} peaks are too many, at most {limits.MAX_PEAKS} are grouped; raise detection_threshold'
        )
    people = assign_by_tag(peaks, order, rule.tag_threshold, rule.max_num_people if rule.ignore_too_much else None)
    scores = people[..., 2].mean(1) if len(people) else np.zeros(0, np.float32)
    people_count, pixels = people[..., 2] > 0, people[..., :2].astype(int)
    if rule.adjust:
        people[..., :2] = np.where(people_count[..., None], _shifted(heatmaps, pixels), people[..., :2])
    if rule.refine and len(people):
        _fill(heatmaps, tags, people, pixels, people_count)
    return people, scores


def _peaks(heatmap: np.ndarray, tags: np.ndarray, limit: int, kernel: int, threshold: float) -> tuple:
    """Returns pixels (x, y), scores and tags of a keypoint's highest peaks, best first."""
    y = x = np.zeros(0, int)
    if heatmap.max() > threshold:
        highest = cv2.dilate(heatmap, np.ones((kernel, kernel), np.uint8))
        y, x = np.nonzero((heatmap == highest) & (highest > threshold))
    scores = heatmap[y, x].astype(np.float64)
    best = np.argsort(-scores, kind='stable')[:limit]
    y, x = y[best], x[best]
    return np.stack([x, y], 1), scores[best], tags[:, y, x].T.astype(np.float64)


def assign_by_tag(
    peaks: Sequence[tuple],
    order: Sequence[int],
    threshold: float,
    most: int | None = None,
) -> np.ndarray:
    """Groups peaks keypoint by keypoint, each time by the cheapest assignment to the people found so far.

    The cost of assigning peak i to person j is ``100 round(|tag_i - mean tag_j|) - score_i``; a pair further apart than
    the threshold starts a new person instead.

    Args:
        peaks: Pixels (x, y) ``[C, 2]``, scores ``[C]`` and tags ``[C, L]`` of each keypoint, best first.
        order: Order in which keypoints are grouped.
        threshold: Largest distance of tags.
        most: Only the first ``most`` people are matched and returned; None for all.

    Returns:
        ``[P, K, 3]``, float32: (x, y, score), zeros for a keypoint not found.
    """
    people: list[np.ndarray] = []
    sums: list[np.ndarray] = []
    counts: list[int] = []
    for keypoint in order:
        pixels, scores, tags = peaks[keypoint]
        if len(scores) == 0:
            continue
        owner = np.full(len(scores), -1)
        if people:
            means = np.stack(sums[:most]) / np.array(counts[:most])[:, None]
            distance = np.linalg.norm(tags[:, None] - means[None], axis=2)
            rows, columns = assignment(np.round(distance) * 100 - scores[:, None])
            near = distance[rows, columns] < threshold
            owner[rows[near]] = columns[near]
        for number, person in enumerate(owner):
            if person < 0:
                people.append(np.zeros((len(peaks), 3), np.float32))
                sums.append(np.zeros(tags.shape[1]))
                counts.append(0)
                person = -1
            people[person][keypoint] = (*pixels[number], scores[number])
            sums[person] = sums[person] + tags[number]
            counts[person] += 1
    return np.stack(people[:most]) if people else np.zeros((0, len(peaks), 3), np.float32)


def assignment(cost: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns rows and columns of the cheapest assignment for costs ``[n, m]``; among equals, the one scipy returns.

    Costs are often equal, as distances of tags are rounded, so the choice among equals matters.
    """
    if cost.shape[0] > cost.shape[1]:
        columns, rows = assignment(cost.T)
        order = np.argsort(rows)
        return rows[order], columns[order]
    count, width = cost.shape
    u, v = np.zeros(count), np.zeros(width)
    of_row, of_column = np.full(count, -1), np.full(width, -1)
    for current in range(count):  # a shortest path assigns a column to one more row
        shortest, before = np.full(width, np.inf), np.full(width, -1)
        remaining, rows, row, least = np.arange(width)[::-1].copy(), [], current, 0.0
        while True:
            rows.append(row)
            through = least + cost[row, remaining] - u[row] - v[remaining]
            shorter = through < shortest[remaining]
            shortest[remaining[shorter]], before[remaining[shorter]] = through[shorter], row
            least = shortest[remaining].min()
            nearest = np.flatnonzero(shortest[remaining] == least)
            free = nearest[of_column[remaining[nearest]] < 0]
            place = free[-1] if len(free) else nearest[0]
            column = remaining[place]
            remaining[place] = remaining[-1]
            remaining = remaining[:-1]
            if of_column[column] < 0:
                break
            row = of_column[column]
        u[current] += least
        for row in rows[1:]:
            u[row] += least - shortest[of_row[row]]
        done = np.ones(width, bool)
        done[remaining] = False
        v[done] -= least - shortest[done]
        row = -1
        while row != current:
            row = before[column]
            of_column[column] = row
            of_row[row], column = column, of_row[row]
    return np.arange(count), of_row


def _shifted(heatmaps: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """Returns centres of pixels, shifted by a quarter of a pixel towards the larger neighbour."""
    height, width = heatmaps.shape[1:]
    x, y = pixels[..., 0], pixels[..., 1]
    keypoint = np.broadcast_to(np.arange(len(heatmaps)), x.shape)
    right = heatmaps[keypoint, y, np.minimum(x + 1, width - 1)] > heatmaps[keypoint, y, np.maximum(x - 1, 0)]
    below = heatmaps[keypoint, np.minimum(y + 1, height - 1), x] > heatmaps[keypoint, np.maximum(y - 1, 0), x]
    return (pixels + 0.5 + np.where(np.stack([right, below], -1), 0.25, -0.25)).astype(np.float32)


def _fill(heatmaps: np.ndarray, tags: np.ndarray, people: np.ndarray, pixels: np.ndarray, is_set: np.ndarray) -> None:
    """Fills missing keypoints in place: the pixel of largest ``heatmap - round(|tag - mean tag of the person|)``."""
    every = np.broadcast_to(np.arange(len(heatmaps)), is_set.shape)
    tag = tags[:, every, pixels[..., 1], pixels[..., 0]] * is_set  # [L, P, K]
    means = (tag.sum(2) / is_set.sum(1)).astype(np.float32)
    with np.errstate(over='ignore'):  # a diverging network can give tags of any size
        for keypoint in np.flatnonzero(~is_set.all(0)):
            blocks = _Blocks.of(heatmaps[keypoint], tags[:, keypoint])
            for person in np.flatnonzero(~is_set[:, keypoint]):
                pixels[person, keypoint] = blocks.best_pixel(means[:, person])
    scores = heatmaps[every, pixels[..., 1], pixels[..., 0]]
    accepted = ~is_set & (scores > 0)
    filled = np.concatenate([_shifted(heatmaps, pixels), scores[..., None]], -1)
    people[accepted] = filled[accepted]


class _Blocks(NamedTuple):
    """A heatmap and its tags in square blocks of pixels, with the bounds of the values in each block."""

    heat: np.ndarray  # [rows, side, columns, side]
    tags: np.ndarray  # [L, rows, side, columns, side]
    highest: np.ndarray  # [rows * columns], largest heatmap value
    low: np.ndarray  # [L, rows * columns], smallest tag
    high: np.ndarray  # [L, rows * columns], largest tag

    @classmethod
    def of(cls, heatmap: np.ndarray, tags: np.ndarray) -> '_Blocks':
        """Returns the blocks of ``[H, W]`` and ``[L, H, W]``."""
        border = [(0, -side % _BLOCK) for side in heatmap.shape]
        if any(map(any, border)):
            heatmap = np.pad(heatmap, border, constant_values=-np.inf)
            tags = np.pad(tags, [(0, 0), *border])
        height, width = heatmap.shape
        sides = height // _BLOCK, _BLOCK, width // _BLOCK, _BLOCK

        def extreme(maps: np.ndarray, reduce: np.ufunc) -> np.ndarray:  # rows first: that reads contiguous memory
            lines = reduce.reduce(maps.reshape(-1, sides[0], _BLOCK, width), 2)
            return reduce.reduce(lines.reshape(-1, sides[0] * sides[2], _BLOCK), 2)

        highest, low, high = extreme(heatmap, np.maximum)[0], extreme(tags, np.minimum), extreme(tags, np.maximum)
        return cls(heatmap.reshape(sides), tags.reshape(-1, *sides), highest, low, high)

    def best_pixel(self, mean: np.ndarray) -> tuple[int, int]:
        """Returns the pixel (x, y) that maximises ``heatmap - round(|tag - mean|)``; the first one in a tie."""
        outside = np.maximum(np.maximum(self.low - mean[:, None], mean[:, None] - self.high), 0)
        bound = self.highest - np.round(np.sqrt((outside**2).sum(0)))
        promising = np.argsort(-bound)[:8]  # their values tell which other blocks can hold the best pixel
        values = self._values(promising, mean)
        chosen = np.flatnonzero(bound >= values.max())
        values = self._values(chosen, mean)
        block, line, column = np.nonzero(values == values.max())
        row, start = np.divmod(chosen[block], self.heat.shape[2])
        return min(zip(row * _BLOCK + line, start * _BLOCK + column))[::-1]

    def _values(self, chosen: np.ndarray, mean: np.ndarray) -> np.ndarray:
        """Returns the values of all pixels of the chosen blocks, ``[n, side, side]``."""
        row, column = np.divmod(chosen, self.heat.shape[2])
        distance = self.tags[:, row, :, column] - mean[:, None, None]  # [n, L, side, side]
        return self.heat[row, :, column] - np.round(np.sqrt((distance**2).sum(1)))
