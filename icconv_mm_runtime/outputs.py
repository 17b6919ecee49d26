"""Outputs of a network for each kind of task: their check, and their decoding to arrays in pixels of the image."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from icconv_mm_runtime import limits
from icconv_mm_runtime.arrays import Arrays
from icconv_mm_runtime.grouping import Grouping, group_people
from icconv_mm_runtime.images import Sample

_FLOAT, _INTEGER = 'f', 'iu'  # kinds of numpy dtypes
# The shape of each output after the batch, and its kind of dtype. Sizes of the same name in an output are equal.
_BOXES = {'boxes': (('objects', 4), _FLOAT), 'scores': (('objects',), _FLOAT), 'labels': (('objects',), _INTEGER)}
OUTPUTS: dict[str, dict[str, tuple[tuple, str]]] = {
    'detection': _BOXES,
    'instance': {**_BOXES, 'masks': (('objects', 'rows', 'columns'), _FLOAT)},
    'semantic': {'logits': (('classes', 'height', 'width'), _FLOAT)},
    'pose': {
        'heatmaps': (('keypoints', 'rows', 'columns'), _FLOAT),
        'tags': (('tags', 'keypoints', 'rows', 'columns'), _FLOAT),
    },
    'keypoints': {
        'keypoints': (('objects', 'keypoints', 2), _FLOAT),
        'keypoint_scores': (('objects', 'keypoints'), _FLOAT),
        'scores': (('objects',), _FLOAT),
    },
    'classification': {'scores': (('classes',), _FLOAT)},
}
_MOST = {'objects': limits.MAX_OBJECTS, 'keypoints': limits.MAX_KEYPOINTS, 'classes': limits.MAX_CLASSES}


def form_of(task: Mapping[str, Any]) -> str:
    """Returns the key of a task's outputs: its kind; ``'keypoints'`` if a pose network groups keypoints itself."""
    return 'keypoints' if task['kind'] == 'pose' and task.get('grouping') is None else task['kind']


def check_outputs(
    task: Mapping[str, Any], outputs: Mapping[str, Any], batch: int, input_shape: Sequence[int]
) -> dict[str, np.ndarray]:
    """Checks and returns the outputs of a task, by name.

    Args:
        task: Its description.
        outputs: The network's outputs.
        batch: Number of images.
        input_shape: Height and width of the input.

    Raises:
        ValueError: An output is missing, has another shape or dtype, or is not finite; the message names it.
    """
    sizes = {'height': input_shape[0], 'width': input_shape[1]}
    arrays = {}
    for name, (shape, kinds) in OUTPUTS[form_of(task)].items():
        key = f'{task["name"]}.{name}' if task['name'] else name
        values = arrays[name] = outputs.get(key)
        if not isinstance(values, np.ndarray):
            raise ValueError(f'the network gives no output {key}')
        wanted = (batch, *(sizes.get(side, side) for side in shape))
        is_alike = values.ndim == len(wanted) and all(
            size == side or isinstance(side, str) for size, side in zip(values.shape, wanted)
        )
        if not is_alike or values.dtype.kind not in kinds:
            numbers = 'floats' if kinds == _FLOAT else 'integers'
            expected = ', '.join(map(str, wanted))
            raise ValueError(
                f'the output {key} must be {numbers} [{expected}], got {values.dtype} {list(values.shape)}'
            )
        sizes.update((side, size) for side, size in zip(shape, values.shape[1:]) if isinstance(side, str))
        for side, size in zip(shape, values.shape[1:]):
            if (size == 0 and side != 'objects') or size > _MOST.get(side, size):
                raise ValueError(f'the output {key} has {size} {side}')
        if kinds == _FLOAT and not _is_finite(values):
            raise ValueError(f'the output {key} is not finite; has training diverged?')
    _check_numbers(task, arrays, sizes.get('keypoints', 0), sizes.get('classes', 0))
    return arrays


def _is_finite(values: np.ndarray) -> bool:
    with np.errstate(all='ignore'):  # a sum is faster, and may overflow though all numbers are finite
        return bool(np.isfinite(values.sum()) or np.isfinite(values).all())


def _check_numbers(task: Mapping[str, Any], arrays: Mapping[str, np.ndarray], keypoints: int, classes: int) -> None:
    """Raises ValueError if labels or keypoints exceed the metadata's classes (unless none are named) or the outputs."""
    labels, named = arrays.get('labels', np.zeros(0, int)), len(task['classes']) or limits.MAX_CLASSES
    if classes > named:
        raise ValueError(f'the network gives {classes} classes, the metadata name {named}')
    if labels.size and not 0 <= labels.min() <= labels.max() < named:
        raise ValueError(f'the output labels has {labels.min()} to {labels.max()}, which are no classes')
    if keypoints:
        named = [*np.ravel(task.get('skeleton') or ()), *((task.get('grouping') or {}).get('keypoint_order') or ())]
        if named and max(named) >= keypoints:
            raise ValueError(f'the network gives {keypoints} keypoints, but the metadata have an index of {max(named)}')


def decode(task: Mapping[str, Any], outputs: Mapping[str, np.ndarray], row: int, sample: Sample) -> Arrays:
    """Returns a task's predictions for the image at index ``row`` of a batch.

    Raises:
        ValueError: The predictions would exceed :mod:`icconv_mm_runtime.limits`.
    """
    return _DECODERS[form_of(task)](task, outputs, row, sample)


def _boxes(task: Mapping[str, Any], outputs: Mapping[str, np.ndarray], row: int, sample: Sample) -> Arrays:
    """Returns ``boxes`` [n, 4] as corners, ``scores``, ``labels``, best first, and for some ``masks`` [n, H, W]."""
    is_object = outputs['scores'][row] > 0
    result = {name: outputs[name][row][is_object] for name in ('boxes', 'scores', 'labels')}
    if 'masks' in outputs:
        masks = outputs['masks'][row][is_object]
        shape = sample.image.shape[:2]
        if (pixels := len(masks) * shape[0] * shape[1]) > limits.MAX_MASK_PIXELS:
            raise ValueError(f'the masks have {pixels} pixels, at most {limits.MAX_MASK_PIXELS} are drawn')
        result['masks'] = np.zeros((len(masks), *shape), bool)
        for whole, mask, box in zip(result['masks'], masks, result['boxes']):
            whole[:] = paste(mask, box, shape, task['mask_threshold'])
    return result


def paste(mask: np.ndarray, box: np.ndarray, shape: Sequence[int], threshold: float) -> np.ndarray:
    """Pastes the probabilities ``[h, w]`` of a box into a mask [H, W] of ``shape``; it is False outside the box."""
    low = np.clip(np.floor(box[:2]) - 1, 0, shape[::-1]).astype(int)
    high = np.clip(np.ceil(box[2:]) + 1, 0, shape[::-1]).astype(int)
    whole = np.zeros(shape, bool)
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


def _semantic(task: Mapping[str, Any], outputs: Mapping[str, np.ndarray], row: int, sample: Sample) -> Arrays:
    """Returns ``seg_map`` [H, W], the class of each pixel."""
    height, width = sample.valid_shape
    logits = outputs['logits'][row][:, :height, :width]
    shape = sample.image.shape[:2]
    if len(logits) == 1 and task['threshold'] is None:
        raise ValueError('logits of one class need a threshold, which the metadata do not have')
    if (values := len(logits) * shape[1]) > limits.MAX_LOGITS:
        raise ValueError(f'{values} logits of a row of pixels are too many, at most {limits.MAX_LOGITS} are kept')
    rows, columns = (_neighbours(*sides, task['align_corners']) for sides in zip(logits.shape[1:], shape))
    seg_map = np.empty(shape, np.uint8 if len(logits) <= 256 else np.int32)
    step = min(64, max(1, limits.MAX_LOGITS // values))
    for start in range(0, shape[0], step):  # the logits of the whole image would take too much memory
        first, second, share = (row[start : start + step] for row in rows)
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
        positions = pixels * np.float32((source - 1) / (target - 1) if target > 1 else 0)
    else:
        positions = np.maximum((pixels + np.float32(0.5)) * np.float32(source / target) - np.float32(0.5), 0)
    return _pairs(positions, source)


def _pairs(positions: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    first = np.minimum(positions.astype(int), count - 1)
    return first, np.minimum(first + 1, count - 1), (positions - first).astype(np.float32)


def _between(maps: np.ndarray, axis: int, neighbours: tuple[np.ndarray, np.ndarray, np.ndarray]) -> np.ndarray:
    first, second, share = neighbours
    if np.array_equal(first, np.arange(maps.shape[axis])) and not share.any():
        return maps
    share = share.reshape(-1, *[1] * (2 - axis))
    return maps.take(first, axis) * (1 - share) + maps.take(second, axis) * share


def _pose(task: Mapping[str, Any], outputs: Mapping[str, np.ndarray], row: int, sample: Sample) -> Arrays:
    """Returns ``keypoints`` [n, K, 2] in pixels of the image, ``keypoint_scores`` [n, K], ``scores`` [n]."""
    heatmaps, tags = outputs['heatmaps'][row], outputs['tags'][row]
    people, scores = group_people(heatmaps, tags, Grouping(**task['grouping']))
    size, center, extent = sample.region or _region(sample)
    keypoints = people[..., :2] * np.divide(size, heatmaps.shape[:0:-1]).astype(np.float32)
    keypoints = keypoints / np.array(size) * extent + center - 0.5 * extent
    return {'keypoints': keypoints, 'keypoint_scores': people[..., 2], 'scores': scores}


def _region(sample: Sample) -> tuple:
    """Returns size, centre and extent of the region shown by a resized and padded input; pixels are their centres."""
    size, scale = sample.input_shape[::-1], np.array(sample.scale, np.float64)
    extent = np.array(size, np.float64) / scale
    center = extent / 2 + (0.5 / scale - 0.5)
    return tuple(size), center.astype(np.float32), extent.astype(np.float32)


def _keypoints(task: Mapping[str, Any], outputs: Mapping[str, np.ndarray], row: int, sample: Sample) -> Arrays:
    """Returns the same as :func:`_pose`, for a network that groups keypoints itself."""
    is_person = outputs['scores'][row] > 0
    size, center, extent = sample.region
    keypoints = outputs['keypoints'][row][is_person] / np.array(size) * extent + center - 0.5 * extent
    scores = {name: outputs[name][row][is_person] for name in ('keypoint_scores', 'scores')}
    return {'keypoints': keypoints, **scores}


def _classification(task: Mapping[str, Any], outputs: Mapping[str, np.ndarray], row: int, sample: Sample) -> Arrays:
    """Returns ``scores`` [C] of the classes."""
    return {'scores': outputs['scores'][row]}


_DECODERS: dict[str, Callable[..., Arrays]] = {
    'detection': _boxes,
    'instance': _boxes,
    'semantic': _semantic,
    'pose': _pose,
    'keypoints': _keypoints,
    'classification': _classification,
}
