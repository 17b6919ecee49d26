"""Schema of an exported file's metadata, which are checked against it before any of them is used."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from numbers import Integral, Real
from typing import Any

from icconv_mm_runtime import limits
from icconv_mm_runtime.errors import RuntimeInputError
from icconv_mm_runtime.outputs import OUTPUTS, form_of

KEY = 'icconv_mm'  # key of the metadata in a file
SCHEMA = 1  # highest metadata schema that this version reads
Check = Callable[[Any, str], None]  # checks a value; raises RuntimeInputError with the name of its field


def parsed(text: str | None, file: str) -> dict[str, Any]:
    """Returns the metadata of a file, as described by :class:`Metadata`.

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
    """Raises RuntimeInputError, with the file and the field, if the metadata do not match :class:`Metadata`."""
    where = f'{file}: its metadata'
    schema = metadata.get('schema') if isinstance(metadata, Mapping) else None
    if isinstance(schema, Integral) and schema > SCHEMA:
        raise RuntimeInputError(
            f'{where} have schema {schema}, this icconv_mm_runtime reads up to {SCHEMA}: install a newer one'
        )
    record(Metadata)(metadata, where)
    names = [task['name'] for task in metadata['tasks']]
    if len(set(names)) < len(names) or ('' in names and len(names) > 1):
        raise RuntimeInputError(f'{where}: tasks: expected a name for each, got {names!r:.100}')
    for task in metadata['tasks']:
        if set(task['outputs']) != set(known := OUTPUTS[form_of(task)]):
            raise RuntimeInputError(
                f'{where}: the outputs of {task["kind"]} are {", ".join(known)}, got {task["outputs"]}'
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


def one_of(*known: Any) -> Check:
    """Returns a check for one of the known values."""

    def check(value: Any, where: str) -> None:
        if not isinstance(value, str) or value not in known:
            raise _wrong(where, f'one of {", ".join(known)}', value)

    return check


def several(kind: Check, low: int, high: int) -> Check:
    """Returns a check for a list of ``low`` to ``high`` values that each pass ``kind``."""

    def check(value: Any, where: str) -> None:
        if not isinstance(value, (list, tuple)) or not low <= len(value) <= high:
            expected = f'{low}' if low == high else f'{low} to {high}'
            raise _wrong(where, f'a list of {expected} values', value)
        for i, each in enumerate(value):
            kind(each, f'{where}.{i}')

    return check


def optional(kind: Check) -> Check:
    """Returns a check for null or a value that passes ``kind``."""
    return lambda value, where: None if value is None else kind(value, where)


def size(value: Any, where: str) -> None:
    """Checks that a value is the size of an image level: two sides."""
    several(integer(1, limits.MAX_SIDE), 2, 2)(value, where)
    if math.prod(value) > limits.MAX_LEVEL_PIXELS:
        raise _wrong(where, f'at most {limits.MAX_LEVEL_PIXELS} pixels', value)


def record(schema: type, closed: bool = False) -> Check:
    """Returns a check for a mapping with the fields of a dataclass and, if ``closed``, no others."""

    def check(value: Any, where: str) -> None:
        if not isinstance(value, Mapping):
            raise _wrong(where, 'fields and values', value)
        known = {each.name: each for each in fields(schema)}
        for name, each in known.items():
            if name in value:
                each.metadata['check'](value[name], _field_of(where, name))
            elif each.default is MISSING:
                raise RuntimeInputError(f'{_field_of(where, name)} is missing')
        if closed and (others := [name for name in value if name not in known]):
            raise _wrong(where, f'the fields {", ".join(known)}', others)

    return check


def one_record(key: str, schemas: Mapping[str, type], closed: bool = False) -> Check:
    """Returns a check for a mapping with the fields of the dataclass that its field ``key`` names."""

    def check(value: Any, where: str) -> None:
        if not isinstance(value, Mapping):
            raise _wrong(where, 'fields and values', value)
        one_of(*schemas)(value.get(key), _field_of(where, key))
        record(schemas[value[key]], closed)(value, where)

    return check


def _field_of(where: str, name: str) -> str:
    return f'{where}{": " if where.endswith("metadata") else "."}{name}'


def of(check: Check, **default: Any) -> Any:
    """Returns a dataclass field whose value must pass the check."""
    return field(metadata={'check': check}, **default)


# --- the schema: steps from an image to the input

COLOR = several(real(0, 255), 3, 3)


@dataclass
class ResizeStep:
    """Resizes to (width, height), or to fit inside it with ``keep_ratio``."""

    op: str = of(text)
    scale: Sequence[int] = of(size)
    keep_ratio: bool = of(flag)


@dataclass
class ResizeEdgeStep:
    """Resizes one edge to ``scale``."""

    op: str = of(text)
    scale: int = of(integer(1, limits.MAX_SIDE))
    edge: str = of(one_of('short', 'long', 'width', 'height'))


@dataclass
class CenterCropStep:
    """Crops the middle of (width, height)."""

    op: str = of(text)
    size: Sequence[int] = of(size)


@dataclass
class PadStep:
    """Pads up to (width, height)."""

    op: str = of(text)
    size: Sequence[int] = of(size)
    value: Sequence[float] = of(COLOR)


@dataclass
class PyramidStep:
    """Computes levels at ``scales`` of an input of (width, height)."""

    op: str = of(text)
    input_size: Sequence[int] = of(size)
    scales: Sequence[float] = of(several(real(1 / limits.MAX_SCALE, limits.MAX_SCALE), 1, limits.MAX_LEVELS))
    size_divisor: int = of(integer(1, limits.MAX_SIDE))
    stride: int = of(integer(1, limits.MAX_SIDE))


@dataclass
class FitStep:
    """Fits the whole image into the middle of (width, height)."""

    op: str = of(text)
    input_size: Sequence[int] = of(size)
    value: Sequence[float] = of(COLOR)


STEPS = {
    'resize': ResizeStep,
    'resize_edge': ResizeEdgeStep,
    'center_crop': CenterCropStep,
    'pad': PadStep,
    'pyramid': PyramidStep,
    'fit': FitStep,
}
ENDS = ('pyramid', 'fit')  # steps that set the image region of the input


@dataclass
class Batch:
    """Pads to multiples of ``divisor``, or to (height, width); batches images of several sizes if it ``pads``.

    ``count`` is the number of images in a batch where it is fixed.
    """

    divisor: int = of(integer(1, limits.MAX_SIDE))
    pads: bool = of(flag)
    sized: bool = of(flag)
    fixed: Sequence[int] | None = of(optional(size), default=None)
    count: int | None = of(optional(integer(1, 1)), default=None)


# --- the schema: tasks

PLACE = integer(0, limits.MAX_KEYPOINTS - 1)
SCORE = real(-1e6, 1e6)


@dataclass
class Task:
    """Description of a task, with the fields of all kinds."""

    name: str = of(part_of_file_name)
    kind: str = of(text)
    outputs: Sequence[str] = of(several(text, 1, 4))
    classes: Sequence[str] = of(several(text, 0, limits.MAX_CLASSES))
    palette: Sequence | None = of(
        optional(several(several(integer(0, 255), 3, 3), 0, limits.MAX_CLASSES)), default=None
    )
    keypoints: Sequence[str] | None = of(optional(several(text, 0, limits.MAX_KEYPOINTS)), default=None)
    skeleton: Sequence | None = of(optional(several(several(PLACE, 2, 2), 0, limits.MAX_KEYPOINTS**2)), default=None)
    thresholds: Sequence[float | None] | None = of(  # lowest score of each class's drawn objects
        optional(several(optional(real(0, 1)), 0, limits.MAX_CLASSES)), default=None
    )


@dataclass
class Instances(Task):
    """Predicts boxes with masks."""

    mask_threshold: float = of(SCORE, kw_only=True)


@dataclass
class Semantic(Task):
    """Predicts a class for every pixel; ``threshold`` separates a single class from the rest."""

    align_corners: bool = of(flag, kw_only=True)
    threshold: float | None = of(optional(SCORE), kw_only=True)


@dataclass
class Grouping:
    """Arguments of :func:`icconv_mm_runtime.grouping.group_people`."""

    max_num_people: int = of(integer(1, limits.MAX_PEOPLE))
    nms_kernel: int = of(integer(1, limits.MAX_KERNEL))
    detection_threshold: float = of(SCORE)
    tag_threshold: float = of(SCORE)
    ignore_too_much: bool = of(flag)
    adjust: bool = of(flag)
    refine: bool = of(flag)
    keypoint_order: Sequence[int] | None = of(optional(several(PLACE, 1, limits.MAX_KEYPOINTS)), default=None)


@dataclass
class Pose(Task):
    """Predicts people; ``grouping`` has the arguments that build them from heatmaps and tags."""

    grouping: Mapping[str, Any] | None = of(optional(record(Grouping, closed=True)), default=None)


KINDS = {
    'detection': Task,
    'instance': Instances,
    'semantic': Semantic,
    'pose': Pose,
    'classification': Task,
}


@dataclass
class Metadata:
    """Metadata that the runtime uses; a file has more, for its readers."""

    schema: int = of(integer(1, SCHEMA))
    steps: Sequence[Mapping] = of(several(one_record('op', STEPS, closed=True), 0, limits.MAX_STEPS))
    batch: Mapping[str, Any] = of(record(Batch))
    tasks: Sequence[Mapping] = of(several(one_record('kind', KINDS), 1, limits.MAX_TASKS))
    weights_sha256: str | None = of(optional(text), default=None)
