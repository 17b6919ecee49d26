"""What a network has to give for each kind of task, and the check that it does."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from icconv_mm_runtime import limits

_FLOAT, _INTEGER = 'f', 'iu'  # kinds of numpy's dtypes
# The sizes of each output behind the batch, and the kind of its numbers. An output has all of one letter alike.
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
    """Which outputs a task has: its kind; ``'keypoints'`` for poses of a network that groups keypoints itself."""
    return 'keypoints' if task['kind'] == 'pose' and task.get('grouping') is None else task['kind']


def check_outputs(
    task: Mapping[str, Any], outputs: Mapping[str, Any], batch: int, input_size: Sequence[int]
) -> dict[str, np.ndarray]:
    """The outputs of a task, by name.

    Args:
        task: Its description.
        outputs: What the network gave.
        batch: Images.
        input_size: Height and width of the input.

    Raises:
        ValueError: One is missing, of other sizes, of other numbers, or not finite; it names the output.
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
    with np.errstate(all='ignore'):  # a sum is quicker, and may be too large though each number is not
        return bool(np.isfinite(values.sum()) or np.isfinite(values).all())


def _check_numbers(task: Mapping[str, Any], found: Mapping[str, np.ndarray], keypoints: int, classes: int) -> None:
    """Labels are classes that the file names, unless it names none; what names keypoints names some that there are."""
    labels, named = found.get('labels', np.zeros(0, int)), len(task['classes']) or limits.MAX_CLASSES
    if classes > named:
        raise ValueError(f'the network gives {classes} classes, the metadata name {named}')
    if labels.size and not 0 <= labels.min() <= labels.max() < named:
        raise ValueError(f'the output labels has {labels.min()} to {labels.max()}, which are no classes')
    if keypoints:
        named = [*np.ravel(task.get('skeleton') or ()), *((task.get('grouping') or {}).get('keypoint_order') or ())]
        if named and max(named) >= keypoints:
            raise ValueError(f'the network gives {keypoints} keypoints, the metadata name number {max(named)}')
