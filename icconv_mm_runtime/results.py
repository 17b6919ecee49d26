"""Decodes network outputs to boxes, masks, segmentation maps, poses and classes in the image."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from icconv_mm_runtime import limits
from icconv_mm_runtime.grouping import group_people
from icconv_mm_runtime.images import Sample
from icconv_mm_runtime.outputs import form_of

Predictions = dict[str, np.ndarray]


def decode(task: Mapping[str, Any], outputs: Mapping[str, np.ndarray], row: int, sample: Sample) -> Predictions:
    """Returns a task's predictions for the image at index ``row`` of a batch.

    Raises:
        ValueError: The predictions would exceed :mod:`icconv_mm_runtime.limits`.
    """
    return _DECODERS[form_of(task)](task, outputs, row, sample)


def _boxes(task: Mapping[str, Any], outputs: Mapping[str, np.ndarray], row: int, sample: Sample) -> Predictions:
    """Returns ``boxes`` [n, 4] as corners, ``scores``, ``labels``, best first, and for some ``masks`` [n, H, W]."""
    found = outputs['scores'][row] > 0
    result = {name: outputs[name][row][found] for name in ('boxes', 'scores', 'labels')}
    if 'masks' in outputs:
        masks = outputs['masks'][row][found]
        size = sample.image.shape[:2]
        if (pixels := len(masks) * size[0] * size[1]) > limits.MAX_MASK_PIXELS:
            raise ValueError(f'the masks have {pixels} pixels, at most {limits.MAX_MASK_PIXELS} are drawn')
        result['masks'] = np.zeros((len(masks), *size), bool)
        for whole, mask, box in zip(result['masks'], masks, result['boxes']):
            whole[:] = paste(mask, box, size, task['mask_threshold'])
    return result


def paste(mask: np.ndarray, box: np.ndarray, size: Sequence[int], threshold: float) -> np.ndarray:
    """Pastes the probabilities ``[h, w]`` of a box into a mask of the image; it is False outside the box."""
    low = np.clip(np.floor(box[:2]) - 1, 0, size[::-1]).astype(int)
    high = np.clip(np.ceil(box[2:]) + 1, 0, size[::-1]).astype(int)
    whole = np.zeros(size, bool)
    if (high > low).all():
        values = np.zeros((1, mask.shape[0] + 2, mask.shape[1] + 2), mask.dtype)  # with a border of zeros
        values[0, 1:-1, 1:-1] = mask
        for axis in (0, 1):
            centers, count = np.arange(low[axis], high[axis], dtype=np.float32) + 0.5, mask.shape[1 - axis]
            extent = box[axis + 2] - box[axis]
            cells = ((centers - box[axis]) / extent * 2 - 1 + 1) * count / 2 - 0.5 if extent else (count - 1) / 2
            cells = np.broadcast_to(np.clip(cells + 1, 0, count + 1), centers.shape)
            values = _between(values, 2 - axis, _pairs(cells, count + 2))
        whole[low[1] : high[1], low[0] : high[0]] = values[0] >= threshold
    return whole


def _semantic(task: Mapping[str, Any], outputs: Mapping[str, np.ndarray], row: int, sample: Sample) -> Predictions:
    """Returns ``seg_map`` [H, W], the class of each pixel."""
    height, width = sample.valid
    logits = outputs['logits'][row][:, :height, :width]
    size = sample.image.shape[:2]
    if len(logits) == 1 and task['threshold'] is None:
        raise ValueError('logits of one class need a threshold, which the metadata do not have')
    if (values := len(logits) * size[1]) > limits.MAX_LOGITS:
        raise ValueError(f'{values} logits of a row of pixels are too many, at most {limits.MAX_LOGITS} are kept')
    rows, columns = (_neighbours(*sides, task['align_corners']) for sides in zip(logits.shape[1:], size))
    seg_map = np.empty(size, np.uint8 if len(logits) <= 256 else np.int32)
    step = min(64, max(1, limits.MAX_LOGITS // values))
    for start in range(0, size[0], step):  # the logits of the whole image would take too much memory
        first, second, share = (each[start : start + step] for each in rows)
        wide = _between(logits[:, first[0] : second[-1] + 1], 2, columns)
        scores = _between(wide, 1, (first - first[0], second - first[0], share))
        if len(logits) > 1:
            seg_map[start : start + step] = scores.argmax(0)
        else:
            seg_map[start : start + step] = 1 / (1 + np.exp(-scores[0])) > task['threshold']
    return {'seg_map': seg_map}


def _neighbours(source: int, target: int, align_corners: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns for each of ``target`` pixels two of ``source``, and the weight of the second, as in torch."""
    pixels = np.arange(target, dtype=np.float32)
    if align_corners:
        places = pixels * np.float32((source - 1) / (target - 1) if target > 1 else 0)
    else:
        places = np.maximum((pixels + np.float32(0.5)) * np.float32(source / target) - np.float32(0.5), 0)
    return _pairs(places, source)


def _pairs(places: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    first = np.minimum(places.astype(int), count - 1)
    return first, np.minimum(first + 1, count - 1), (places - first).astype(np.float32)


def _between(maps: np.ndarray, axis: int, neighbours: tuple[np.ndarray, np.ndarray, np.ndarray]) -> np.ndarray:
    first, second, share = neighbours
    if np.array_equal(first, np.arange(maps.shape[axis])) and not share.any():
        return maps
    share = share.reshape(-1, *[1] * (2 - axis))
    return maps.take(first, axis) * (1 - share) + maps.take(second, axis) * share


def _pose(task: Mapping[str, Any], outputs: Mapping[str, np.ndarray], row: int, sample: Sample) -> Predictions:
    """Returns ``keypoints`` [n, K, 2] in pixels of the image, ``keypoint_scores`` [n, K], ``scores`` [n]."""
    heatmaps, tags = outputs['heatmaps'][row], outputs['tags'][row]
    people, scores = group_people(heatmaps, tags, **task['grouping'])
    size, center, extent = sample.region or _region(sample)
    keypoints = people[..., :2] * np.divide(size, heatmaps.shape[:0:-1]).astype(np.float32)
    keypoints = keypoints / np.array(size) * extent + center - 0.5 * extent
    return {'keypoints': keypoints, 'keypoint_scores': people[..., 2], 'scores': scores}


def _region(sample: Sample) -> tuple:
    """Returns size, centre and extent of the region shown by a resized and padded input; pixels are their centres."""
    size, scale = sample.input_size[::-1], np.array(sample.scale, np.float64)
    extent = np.array(size, np.float64) / scale
    center = extent / 2 + (0.5 / scale - 0.5)
    return tuple(size), center.astype(np.float32), extent.astype(np.float32)


def _keypoints(task: Mapping[str, Any], outputs: Mapping[str, np.ndarray], row: int, sample: Sample) -> Predictions:
    """Returns the same as :func:`_pose`, for a network that groups keypoints itself."""
    found = outputs['scores'][row] > 0
    size, center, extent = sample.region
    keypoints = outputs['keypoints'][row][found] / np.array(size) * extent + center - 0.5 * extent
    scores = {name: outputs[name][row][found] for name in ('keypoint_scores', 'scores')}
    return {'keypoints': keypoints, **scores}


def _classification(
    task: Mapping[str, Any], outputs: Mapping[str, np.ndarray], row: int, sample: Sample
) -> Predictions:
    """Returns ``scores`` [C] of the classes."""
    return {'scores': outputs['scores'][row]}


_DECODERS: dict[str, Callable[..., Predictions]] = {
    'detection': _boxes,
    'instance': _boxes,
    'semantic': _semantic,
    'pose': _pose,
    'keypoints': _keypoints,
    'classification': _classification,
}
