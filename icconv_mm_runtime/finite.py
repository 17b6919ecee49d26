"""Finds weights that are not finite, in a checkpoint as in an exported file: such a network predicts nothing at all."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

ADVICE = 'has values that are not finite, as after a training that diverged: such a network predicts nothing'
_FLOATS = {1: np.float32, 10: np.float16, 11: np.float64, 16: np.uint16}  # ONNX's types of tensors; 16 is bfloat16
_GRAPH, _INITIALIZER = 7, 5  # fields of ONNX's messages
_TYPE, _FLOAT_DATA, _NAME, _RAW_DATA, _DOUBLE_DATA = 2, 4, 8, 9, 10


def is_finite(values: np.ndarray) -> bool:
    """Returns whether an array has neither NaN nor infinite values."""
    return bool(np.isfinite(values).all())


def first_not_finite(weights: Iterable[tuple[str, np.ndarray]]) -> str | None:
    """Returns the name of the first array with NaN or infinite values; None if there is none."""
    return next((name for name, values in weights if not is_finite(values)), None)


def weights_of_onnx(file: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Yields names and values of the weights of a network in ONNX's format, without a library of it.

    Scalars are left out: a network may compare with an infinite one. What is not in ONNX's format yields nothing.
    """
    content = np.memmap(file, np.uint8, 'r') if file.stat().st_size else np.zeros(0, np.uint8)
    for number, graph in _fields(content):
        if number != _GRAPH or isinstance(graph, int):
            continue
        for part, tensor in _fields(graph):
            if part == _INITIALIZER and not isinstance(tensor, int):
                fields = dict(_fields(tensor))
                kind, values = _FLOATS.get(fields.get(_TYPE)), fields.get(_RAW_DATA)
                if kind is None or fields.get(_NAME) is None:
                    continue
                for key, own in ((_FLOAT_DATA, np.float32), (_DOUBLE_DATA, np.float64)):
                    if values is None and not isinstance(fields.get(key, 0), int):
                        kind, values = own, fields[key]
                if values is None or len(values) % np.dtype(kind).itemsize or len(values) == np.dtype(kind).itemsize:
                    continue
                values = np.frombuffer(values.tobytes(), kind)
                if kind is np.uint16:
                    values = (values.astype(np.uint32) << 16).view(np.float32)
                yield fields[_NAME].tobytes().decode(errors='replace'), values


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
