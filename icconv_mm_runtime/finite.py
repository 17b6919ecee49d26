"""Finds weights that are not finite, in a checkpoint as in an exported file: such a network predicts nothing at all."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

ADVICE = 'has values that are not finite, as after a training that diverged: such a network predicts nothing'
_FLOATS = {1: np.float32, 10: np.float16, 11: np.float64, 16: np.uint16}  # ONNX's types of tensors; 16 is bfloat16
_FLOATS_OF_OPENVINO = {'f32': np.float32, 'f16': np.float16, 'f64': np.float64, 'bf16': np.uint16}
_PARTS = {  # what leads to weights: fields of ONNX's messages, or offsets in the tables of ONNX Runtime's format
    'onnx': {
        'model': {7: 'graph', 25: 'function'},
        'graph': {1: 'node', 5: 'tensor', 15: 'sparse'},
        'function': {7: 'node'},
        'node': {5: 'attribute'},
        'attribute': {2: 'floats', 5: 'tensor', 6: 'graph', 7: 'floats', 10: 'tensor', 11: 'graph', 22: 'sparse'},
        'sparse': {1: 'tensor'},
    },
    'ort': {  # a list of tables, or one
        'graph': {4: ['tensor'], 8: ['node'], 18: ['sparse']},
        'node': {24: ['attribute']},
        'attribute': {16: 'tensor', 18: 'graph', 26: ['tensor'], 28: ['graph']},
        'sparse': {4: 'tensor'},
    },
}
_OUTPUT = 2  # of a node
_TYPE, _FLOAT_DATA, _INT32_DATA, _NAME, _RAW_DATA, _DOUBLE_DATA, _EXTERNAL, _LOCATION = 2, 4, 5, 8, 9, 10, 13, 14
_MODEL, _GRAPH, _NAME_OF_ORT, _TYPE_OF_ORT, _DATA_OF_ORT = 6, 18, 4, 10, 12


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


def stored_weights(file: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Yields names and values of the weights and constants of a network that an engine has opened.

    Args:
        file: An ONNX file, one of ONNX Runtime (``.ort``) or of OpenVINO (``.xml``). Weights, in other files as well,
            are mapped into memory; bodies of loops and branches have theirs. What is no network yields nothing.
    """
    if file.suffix == '.xml':
        yield from _stored_in_openvino(file)
    elif file.stat().st_size:
        content = np.memmap(file, np.uint8, 'r')
        yield from (
            _stored_in_ort(content) if file.suffix == '.ort' else _message_weights(content, 'model', '', file.parent)
        )


def _message_weights(message: np.ndarray, kind: str, name: str, folder: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Yields the weights in a message of ONNX; ``name`` is that of a node's output, for constants without their own."""
    if kind == 'tensor':
        yield from _values(message, name, folder)
    elif kind == 'floats':
        yield name, _floats(message, np.float32)
    for number, content in _fields(message) if kind in _PARTS['onnx'] else ():
        if isinstance(content, int):
            continue
        if kind == 'node' and number == _OUTPUT:
            name = _text(content)
        elif part := _PARTS['onnx'][kind].get(number):
            yield from _message_weights(content, part, name, folder)


def _values(tensor: np.ndarray, name: str, folder: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Yields the name and the values of a tensor of floats."""
    every = list(_fields(tensor))
    fields = dict(every)
    kind, values = _FLOATS.get(fields.get(_TYPE)), fields.get(_RAW_DATA)
    if kind is None:
        return
    if fields.get(_LOCATION) == 1:
        values = _external(folder, (dict(_fields(entry)) for key, entry in every if key == _EXTERNAL))
    for key, field in ((_FLOAT_DATA, np.float32), (_DOUBLE_DATA, np.float64)):
        if values is None and not isinstance(fields.get(key, 0), int):
            kind, values = field, fields[key]
    if values is None and not isinstance(fields.get(_INT32_DATA, 0), int):  # of 16 bits, each as a number of its own
        values = np.array(list(_varints(fields[_INT32_DATA])), np.uint16).view(np.uint8)
    if values is not None and len(values) % np.dtype(kind).itemsize == 0:
        yield _text(fields.get(_NAME, np.zeros(0, np.uint8))) or name, _floats(values, kind)


def _external(folder: Path, entries: Iterable[dict[int, np.ndarray]]) -> np.ndarray:
    """Returns the bytes of a tensor in another file."""
    about = {_text(entry[1]): _text(entry[2]) for entry in entries}
    content, start = np.memmap(folder / about['location'], np.uint8, 'r'), int(about.get('offset', 0))
    return content[start : start + int(about.get('length', len(content)))]


def _stored_in_ort(content: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Yields the weights of a network in ONNX Runtime's own format, which holds no weights of other files."""
    from flatbuffers import encode, packer, table  # which ONNX Runtime requires

    def tables(parent: Any, offset: int, is_list: bool = False) -> Iterator[Any]:
        if place := parent.Offset(offset):
            first = parent.Vector(place) if is_list else parent.Pos + place
            for number in range(parent.VectorLen(place) if is_list else 1):
                yield table.Table(content, parent.Indirect(first + 4 * number))

    def weights(parent: Any, kind: str) -> Iterator[tuple[str, np.ndarray]]:
        if kind == 'tensor':
            field, of_type, data = (parent.Offset(offset) for offset in (_NAME_OF_ORT, _TYPE_OF_ORT, _DATA_OF_ORT))
            name = parent.String(parent.Pos + field).decode(errors='replace') if field else ''
            number = encode.Get(packer.int32, content, parent.Pos + of_type) if of_type else 0
            if number in _FLOATS and data:
                values = content[parent.Vector(data) : parent.Vector(data) + parent.VectorLen(data)]
                yield name, _floats(values, _FLOATS[number])
        for offset, part in _PARTS['ort'].get(kind, {}).items():
            for child in tables(parent, offset, isinstance(part, list)):
                yield from weights(child, part[0] if isinstance(part, list) else part)

    file = table.Table(content, encode.Get(packer.uoffset, content, 0))
    for model in tables(file, _MODEL):
        for graph in tables(model, _GRAPH):
            yield from weights(graph, 'graph')


def _stored_in_openvino(file: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Yields the constants of a network, whose values are in the ``.bin`` beside it."""
    beside = file.with_suffix('.bin')
    content = np.memmap(beside, np.uint8, 'r') if beside.stat().st_size else np.zeros(0, np.uint8)
    for layer in ElementTree.parse(file).iter('layer'):
        about = layer.find('data')
        if layer.get('type') == 'Const' and about.get('element_type') in _FLOATS_OF_OPENVINO:
            start, kind = int(about.get('offset')), _FLOATS_OF_OPENVINO[about.get('element_type')]
            yield layer.get('name'), _floats(content[start : start + int(about.get('size'))], kind)


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
    offset = 0

    def varint() -> int:
        nonlocal offset
        value = shift = 0
        while offset < len(message) and shift < 70:
            byte = int(message[offset])
            offset += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value
        raise EOFError

    try:
        while offset < len(message):
            key = varint()
            kind = key & 7
            if kind == 0:
                yield key >> 3, varint()
                continue
            if kind not in (1, 2, 5):
                return
            length = varint() if kind == 2 else {1: 8, 5: 4}[kind]
            if length > len(message) - offset:
                return
            yield key >> 3, message[offset : offset + length]
            offset += length
    except EOFError:  # it ends early: the engine tells
        return
