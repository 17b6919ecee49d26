"""Required outputs of a network for each kind of task, and their check."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from icconv_mm_runtime import limits

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
    task: Mapping[str, Any], outputs: Mapping[str, Any], batch: int, input_size: Sequence[int]
) -> dict[str, np.ndarray]:
    """Checks and returns the outputs of a task, by name.

    Args:
        task: Its description.
        outputs: The network's outputs.
        batch: Number of images.
        input_size: Height and width of the input.

    Raises:
        ValueError: An output is missing, has another shape or dtype, or is not finite; the message names it.
    """
    sizes = {'height': input_size[0], 'width': input_size[1]}
    found = {}
    for name, (shape, kinds) in OUTPUTS[form_of(task)].items():
        key = f'{task["name"]}.{name}' if task['name'] else name
        values = found[name] = outputs.get(key)
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
    _check_numbers(task, found, sizes.get('keypoints', 0), sizes.get('classes', 0))
    return found


def _is_finite(values: np.ndarray) -> bool:
    with np.errstate(all='ignore'):  # a sum is faster, and may overflow though all numbers are finite
        return bool(np.isfinite(values.sum()) or np.isfinite(values).all())


def _check_numbers(task: Mapping[str, Any], found: Mapping[str, np.ndarray], keypoints: int, classes: int) -> None:
    """Raises ValueError if labels or keypoints exceed the metadata's classes (unless none are named) or the outputs."""
    labels, named = found.get('labels', np.zeros(0, int)), len(task['classes']) or limits.MAX_CLASSES
    if classes > named:
        raise ValueError(f'the network gives {classes} classes, the metadata name {named}')
    if labels.size and not 0 <= labels.min() <= labels.max() < named:
        raise ValueError(f'the output labels has {labels.min()} to {labels.max()}, which are no classes')
    if keypoints:
        named = [*np.ravel(task.get('skeleton') or ()), *((task.get('grouping') or {}).get('keypoint_order') or ())]
        if named and max(named) >= keypoints:
            raise ValueError(f'the network gives {keypoints} keypoints, but the metadata have an index of {max(named)}')
