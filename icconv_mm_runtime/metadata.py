"""Schema of an exported file's metadata, which are checked against it before any of them is used."""

import json
import math
from collections.abc import Callable, Mapping
from numbers import Integral, Real
from typing import Any

from icconv_mm_runtime import limits
from icconv_mm_runtime.errors import RuntimeInputError
from icconv_mm_runtime.outputs import OUTPUTS, form_of

KEY = 'icconv_mm'  # key of the metadata in a file
SCHEMA = 1  # highest metadata schema that this version reads
Check = Callable[[Any, str], None]  # checks a value; raises RuntimeInputError with the name of its field


def parsed(text: str | None, file: str) -> dict[str, Any]:
    """Returns the metadata of a file, as described by :data:`METADATA`.

    Raises:
        RuntimeInputError: The metadata are missing or not usable by this version; the message names the field.
    """
    if not text:
        raise RuntimeInputError(f'{file}: has no metadata of icconv_mm; write it with tools/export.py')
    if len(text) > limits.MAX_METADATA_BYTES:
        raise RuntimeInputError(
            f'{file}: has {len(text)} bytes of metadata, at most {limits.MAX_METADATA_BYTES} are read'
        )
    try:
        metadata = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RuntimeInputError(f'{file}: its metadata are no JSON ({error})') from None
    check_metadata(metadata, file)
    return metadata


def check_metadata(metadata: Any, file: str) -> None:
    """Raises RuntimeInputError, with the file and the field, if the metadata do not match :data:`METADATA`."""
    where = f'{file}: its metadata'
    schema = metadata.get('schema') if isinstance(metadata, Mapping) else None
    if isinstance(schema, Integral) and schema > SCHEMA:
        raise RuntimeInputError(
            f'{where} have schema {schema}, this icconv_mm_runtime reads up to {SCHEMA}: install a newer one'
        )
    METADATA(metadata, where)
    names = [task['name'] for task in metadata['tasks']]
    if len(set(names)) < len(names) or ('' in names and len(names) > 1):
        raise RuntimeInputError(f'{where}: tasks: expected a name for each, got {names!r:.100}')
    for task in metadata['tasks']:
        if set(task['outputs']) != set(outputs := OUTPUTS[form_of(task)]):
            raise RuntimeInputError(
                f'{where}: the outputs of {task["kind"]} are {", ".join(outputs)}, got {task["outputs"]}'
            )
    kinds = [step['op'] for step in metadata['steps']]
    if any(kind in ENDS for kind in kinds[:-1]):
        raise RuntimeInputError(f'{where}: steps: nothing can follow {" or ".join(ENDS)}, got {kinds}')
    if any(form_of(task) == 'keypoints' for task in metadata['tasks']) and not (kinds and kinds[-1] in ENDS):
        raise RuntimeInputError(f'{where}: steps: keypoints need {" or ".join(ENDS)} at their end, got {kinds}')


# --- kinds of values


def _wrong(where: str, expected: str, value: Any) -> RuntimeInputError:
    try:
        got = f'{value!r:.60}'
    except (ValueError, RecursionError):  # for an integer of more than 4300 digits, or deeply nested lists
        got = type(value).__name__
    return RuntimeInputError(f'{where} must be {expected}, got {got}')


def integer(low: int, high: int) -> Check:
    """Returns a check for an integer from ``low`` to ``high``."""

    def check(value: Any, where: str) -> None:
        if isinstance(value, bool) or not isinstance(value, Integral) or not low <= value <= high:
            raise _wrong(where, f'a whole number from {low} to {high}', value)

    return check


def real(low: float, high: float) -> Check:
    """Returns a check for a finite number from ``low`` to ``high``."""

    def check(value: Any, where: str) -> None:
        if isinstance(value, bool) or not isinstance(value, Real) or not low <= value <= high:
            raise _wrong(where, f'a number from {low:g} to {high:g}', value)

    return check


def flag(value: Any, where: str) -> None:
    """Checks that a value is true or false."""
    if not isinstance(value, bool):
        raise _wrong(where, 'true or false', value)


def text(value: Any, where: str) -> None:
    """Checks that a value is a text of at most ``limits.MAX_NAME`` characters."""
    if not isinstance(value, str) or len(value) > limits.MAX_NAME:
        raise _wrong(where, f'a text of at most {limits.MAX_NAME} letters', value)


def part_of_file_name(value: Any, where: str) -> None:
    """Checks that a value is a text that can be part of a file name."""
    text(value, where)
    if not value.isprintable() or set(value) & set('/\\:') or len(value.encode()) > limits.MAX_TASK_NAME:
        raise _wrong(where, f'a part of the name of a file, of at most {limits.MAX_TASK_NAME} bytes', value)


def one_of(*choices: Any) -> Check:
    """Returns a check for one of the known values."""

    def check(value: Any, where: str) -> None:
        if not isinstance(value, str) or value not in choices:
            raise _wrong(where, f'one of {", ".join(choices)}', value)

    return check


def several(kind: Check, low: int, high: int) -> Check:
    """Returns a check for a list of ``low`` to ``high`` values that each pass ``kind``."""

    def check(value: Any, where: str) -> None:
        if not isinstance(value, (list, tuple)) or not low <= len(value) <= high:
            expected = f'{low}' if low == high else f'{low} to {high}'
            raise _wrong(where, f'a list of {expected} values', value)
        for i, item in enumerate(value):
            kind(item, f'{where}.{i}')

    return check


def optional(kind: Check) -> Check:
    """Returns a check for null or a value that passes ``kind``."""
    return lambda value, where: None if value is None else kind(value, where)


def size(value: Any, where: str) -> None:
    """Checks that a value is the size of an image level: two sides."""
    several(integer(1, limits.MAX_SIDE), 2, 2)(value, where)
    if math.prod(value) > limits.MAX_LEVEL_PIXELS:
        raise _wrong(where, f'at most {limits.MAX_LEVEL_PIXELS} pixels', value)


def record(required: Mapping[str, Check], others: Mapping[str, Check] | None = None, closed: bool = False) -> Check:
    """Returns a check for a mapping with the required fields, some of the others and, if ``closed``, no more."""
    fields = {**required, **(others or {})}

    def check(value: Any, where: str) -> None:
        if not isinstance(value, Mapping):
            raise _wrong(where, 'fields and values', value)
        for name, kind in fields.items():
            if name in value:
                kind(value[name], _field_of(where, name))
            elif name in required:
                raise RuntimeInputError(f'{_field_of(where, name)} is missing')
        if closed and (more := [name for name in value if name not in fields]):
            raise _wrong(where, f'the fields {", ".join(fields)}', more)

    return check


def one_record(key: str, schemas: Mapping[str, Check]) -> Check:
    """Returns a check for a mapping that passes the check which its field ``key`` names."""

    def check(value: Any, where: str) -> None:
        if not isinstance(value, Mapping):
            raise _wrong(where, 'fields and values', value)
        one_of(*schemas)(value.get(key), _field_of(where, key))
        schemas[value[key]](value, where)

    return check


def _field_of(where: str, name: str) -> str:
    return f'{where}{": " if where.endswith("metadata") else "."}{name}'


# --- the schema. Sizes are (width, height).

SIDE = integer(1, limits.MAX_SIDE)
COLOR = several(real(0, 255), 3, 3)
PLACE = integer(0, limits.MAX_KEYPOINTS - 1)
SCORE = real(-1e6, 1e6)
_SCALES = several(real(1 / limits.MAX_SCALE, limits.MAX_SCALE), 1, limits.MAX_LEVELS)
ENDS = ('pyramid', 'fit')  # steps that set the image region of the input


def _step(**options: Check) -> Check:
    return record({'op': text, **options}, closed=True)


STEPS = {  # from an image to the input
    'resize': _step(scale=size, keep_ratio=flag),  # to the scale, or to fit inside it
    'resize_edge': _step(scale=SIDE, edge=one_of('short', 'long', 'width', 'height')),
    'center_crop': _step(size=size),
    'pad': _step(size=size, value=COLOR),  # up to the size
    'pyramid': _step(input_size=size, scales=_SCALES, size_divisor=SIDE, stride=SIDE),  # levels at scales of an input
    'fit': _step(input_size=size, value=COLOR),  # the whole image in the middle
}
# Pads to multiples of `divisor`, or to `fixed` (height, width); batches images of several sizes if it `pads`. `count`
# is the number of images in a batch where it is fixed.
BATCH = record(
    {'divisor': SIDE, 'pads': flag, 'sized': flag}, {'fixed': optional(size), 'count': optional(integer(1, 1))}
)
GROUPING = record(  # fields of icconv_mm_runtime.grouping.Grouping
    {
        'max_num_people': integer(1, limits.MAX_PEOPLE),
        'nms_kernel': integer(1, limits.MAX_KERNEL),
        'detection_threshold': SCORE,
        'tag_threshold': SCORE,
        **dict.fromkeys(('ignore_too_much', 'adjust', 'refine'), flag),
    },
    {'keypoint_order': optional(several(PLACE, 1, limits.MAX_KEYPOINTS))},
    closed=True,
)
_TASK = {
    'name': part_of_file_name,
    'kind': text,
    'outputs': several(text, 1, 4),
    'classes': several(text, 0, limits.MAX_CLASSES),
}
_OF_TASK = {
    'palette': optional(several(several(integer(0, 255), 3, 3), 0, limits.MAX_CLASSES)),
    'keypoints': optional(several(text, 0, limits.MAX_KEYPOINTS)),
    'skeleton': optional(several(several(PLACE, 2, 2), 0, limits.MAX_KEYPOINTS**2)),
    # lowest score of each class's drawn objects
    'thresholds': optional(several(optional(real(0, 1)), 0, limits.MAX_CLASSES)),
}
KINDS = {
    'detection': record(_TASK, _OF_TASK),
    'instance': record({**_TASK, 'mask_threshold': SCORE}, _OF_TASK),
    # the threshold separates a single class from the rest
    'semantic': record({**_TASK, 'align_corners': flag, 'threshold': optional(SCORE)}, _OF_TASK),
    'pose': record(_TASK, {**_OF_TASK, 'grouping': optional(GROUPING)}),  # none if the network groups keypoints
    'classification': record(_TASK, _OF_TASK),
}
METADATA = record(  # what the runtime uses; a file has more, for its readers
    {
        'schema': integer(1, SCHEMA),
        'steps': several(one_record('op', STEPS), 0, limits.MAX_STEPS),
        'batch': BATCH,
        'tasks': several(one_record('kind', KINDS), 1, limits.MAX_TASKS),
    },
    {'weights_sha256': optional(text)},
)
