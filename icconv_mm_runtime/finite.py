"""Finds weights that are not finite, in a checkpoint as in an exported file: such a network predicts nothing at all."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

ADVICE = 'has values that are not finite, as after a training that diverged: such a network predicts nothing'
_FLOATS = {1: np.float32, 10: np.float16, 11: np.float64, 16: np.uint16}  # ONNX's types of tensors; 16 is bfloat16
_GRAPH, _NODE, _INITIALIZER, _OUTPUT, _ATTRIBUTE, _TENSOR = 7, 1, 5, 2, 5, 5  # fields of ONNX's messages
_TYPE, _FLOAT_DATA, _INT32_DATA, _NAME, _RAW_DATA, _DOUBLE_DATA, _EXTERNAL, _LOCATION = 2, 4, 5, 8, 9, 10, 13, 14
_MODEL, _GRAPH_OF_MODEL, _INITIALIZERS, _NAME_OF_TENSOR, _TYPE_OF_TENSOR, _DATA = (
    6,
    18,
    4,
    4,
    10,
    12,
)  # of ONNX Runtime's


def is_finite(values: np.ndarray) -> bool:
    """Returns whether an array has neither NaN nor infinite values."""
    return bool(np.isfinite(values).all())


def first_not_finite(weights: Iterable[tuple[str, np.ndarray]]) -> str | None:
    """Returns the name of the first array of an exported network that is not finite; None if there is none.

    Scalars and masks, arrays of one finite number and infinite ones, may be infinite: a network compares with them.
    """
    for name, values in weights:
        if not is_finite(values):
            finite = values[np.isfinite(values)]
            if np.isnan(values).any() or (values.size > 1 and len(np.unique(finite)) != 1):
                return name
    return None


def weights_of_onnx(file: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Yields names and values of the weights and constants of a network in ONNX's format, without a library of it.

    Weights in other files are mapped into memory as well. What is not in ONNX's format yields nothing.
    """
    content = np.memmap(file, np.uint8, 'r') if file.stat().st_size else np.zeros(0, np.uint8)
    for number, graph in _fields(content):
        if number != _GRAPH or isinstance(graph, int):
            continue
        for part, message in _fields(graph):
            if part == _INITIALIZER:
                yield from _values(message, '', file.parent)
            elif part == _NODE and not isinstance(message, int):
                fields = list(_fields(message))
                name = next((each for key, each in fields if key == _OUTPUT), np.zeros(0, np.uint8))
                attributes = (each for key, each in fields if key == _ATTRIBUTE and not isinstance(each, int))
                for attribute in attributes:
                    for key, tensor in _fields(attribute):
                        if key == _TENSOR:
                            yield from _values(tensor, _text(name), file.parent)


def _values(tensor: Any, name: str, folder: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Yields the name and the values of a tensor of floats."""
    if isinstance(tensor, int):
        return
    every = list(_fields(tensor))
    fields = dict(every)
    kind, values = _FLOATS.get(fields.get(_TYPE)), fields.get(_RAW_DATA)
    if kind is None:
        return
    if fields.get(_LOCATION) == 1:
        values = _external(folder, (dict(_fields(entry)) for key, entry in every if key == _EXTERNAL))
    for key, own in ((_FLOAT_DATA, np.float32), (_DOUBLE_DATA, np.float64)):
        if values is None and not isinstance(fields.get(key, 0), int):
            kind, values = own, fields[key]
    if values is None and not isinstance(fields.get(_INT32_DATA, 0), int):  # of 16 bits, each as a number of its own
        values = np.array(list(_varints(fields[_INT32_DATA])), np.uint16).view(np.uint8)
    if values is not None and len(values) % np.dtype(kind).itemsize == 0:
        yield _text(fields.get(_NAME, np.zeros(0, np.uint8))) or name, _floats(values, kind)


def _external(folder: Path, entries: Iterable[dict[int, np.ndarray]]) -> np.ndarray:
    """Returns the bytes of a tensor in another file."""
    about = {_text(entry[1]): _text(entry[2]) for entry in entries}
    content, start = np.memmap(folder / about['location'], np.uint8, 'r'), int(about.get('offset', 0))
    return content[start : start + int(about.get('length', len(content)))]


def weights_of_ort(file: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Yields names and values of the weights of a network that ONNX Runtime has opened from its own format."""
    from flatbuffers import encode, packer, table  # which ONNX Runtime requires

    content = np.memmap(file, np.uint8, 'r')
    graph = table.Table(content, encode.Get(packer.uoffset, content, 0))
    for slot in (_MODEL, _GRAPH_OF_MODEL):
        graph = table.Table(content, graph.Indirect(graph.Pos + graph.Offset(slot)))
    if not (slot := graph.Offset(_INITIALIZERS)):
        return
    first = graph.Vector(slot)
    for place in range(first, first + 4 * graph.VectorLen(slot), 4):
        tensor = table.Table(content, graph.Indirect(place))
        slots = [tensor.Offset(slot) for slot in (_NAME_OF_TENSOR, _TYPE_OF_TENSOR, _DATA)]
        kind = _FLOATS.get(encode.Get(packer.int32, content, tensor.Pos + slots[1])) if slots[1] else None
        if kind is not None and slots[2]:
            start = tensor.Vector(slots[2])
            values = content[start : start + tensor.VectorLen(slots[2])]
            yield tensor.String(tensor.Pos + slots[0]).decode(errors='replace'), _floats(values, kind)


def _floats(content: np.ndarray, kind: Any) -> np.ndarray:
    """Returns bytes as numbers, without a copy of them unless they are of bfloat16."""
    values = content.view(kind)
    return values if kind is not np.uint16 else (values.astype(np.uint32) << 16).view(np.float32)


def _text(content: np.ndarray) -> str:
    return content.tobytes().decode(errors='replace')


def _varints(message: np.ndarray) -> Iterator[int]:
    value = shift = 0
    for byte in message.tolist():
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            yield value & 0xFFFF
            value = shift = 0


def _fields(message: np.ndarray) -> Iterator[tuple[int, Any]]:
    """Yields number and value of each field of a message of protocol buffers: bytes as an array, or an integer."""
    place = 0

    def varint() -> int:
        nonlocal place
        value = shift = 0
        while place < len(message) and shift < 70:
            byte = int(message[place])
            place += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value
        raise EOFError

    try:
        while place < len(message):
            key = varint()
            kind = key & 7
            if kind == 0:
                yield key >> 3, varint()
                continue
            if kind not in (1, 2, 5):
                return
            length = varint() if kind == 2 else {1: 8, 5: 4}[kind]
            if length > len(message) - place:
                return
            yield key >> 3, message[place : place + length]
            place += length
    except EOFError:  # it ends early: the engine tells
        return
