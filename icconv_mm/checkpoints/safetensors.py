"""Reads and writes the format safetensors (https://github.com/huggingface/safetensors) without its library.

A file is the length of a header (8 bytes, little-endian), the header (JSON: dtype, shape, first and last byte of each
tensor, and texts under ``__metadata__``), then the tensors' bytes one after another, in little-endian order.
"""

import json
from collections.abc import Mapping
from math import prod
from typing import Any, BinaryIO

import torch
from torch import Tensor

from icconv_mm.errors import InputError

_METADATA = '__metadata__'
_LENGTH = 8  # bytes before the header
_LONGEST = 100_000_000  # bytes of a header, as in the library
_MOST_DIMENSIONS = 64
_DTYPES = {
    'BOOL': torch.bool, 'U8': torch.uint8, 'I8': torch.int8, 'I16': torch.int16, 'I32': torch.int32, 'I64': torch.int64,
    'F16': torch.float16, 'BF16': torch.bfloat16, 'F32': torch.float32, 'F64': torch.float64, 'C64': torch.complex64,
    'F8_E4M3': torch.float8_e4m3fn, 'F8_E5M2': torch.float8_e5m2,
    **{f'U{bits}': getattr(torch, f'uint{bits}') for bits in (16, 32, 64) if hasattr(torch, f'uint{bits}')},
}  # fmt: skip
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


def read(file: BinaryIO, device: str | torch.device = 'cpu') -> dict[str, Tensor]:
    """Returns the tensors of an open file by name, each with memory of its own.

    Raises:
        ValueError: The file is no such file, or a tensor's dtype is unknown here.
    """
    header, start = _header(file)
    _check_layout(header, file.seek(0, 2) - start)
    tensors = {}
    for name, entry in header.items():
        begin, end = entry['data_offsets']
        file.seek(start + begin)
        data = bytearray(file.read(end - begin))
        dtype, shape = _DTYPES[entry['dtype']], entry['shape']
        tensor = torch.frombuffer(data, dtype=torch.uint8) if data else torch.empty(0, dtype=torch.uint8)
        tensor = tensor.clamp(max=1).bool() if dtype == torch.bool else tensor.view(dtype)  # others are no bools
        tensors[name] = tensor.reshape(shape).to(device)
    return tensors


def texts_of(file: BinaryIO) -> dict[str, str]:
    """Returns the texts beside the tensors of an open file by name; raises ValueError if it is no such file."""
    metadata = _parsed(file)[0].get(_METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
        raise ValueError(f'{_METADATA} is no dict of texts')
    return metadata


def serialized(tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> bytes:
    """Returns the content of a file.

    Args:
        tensors: Tensors by name; tensors that share memory are written one by one.
        metadata: Texts by name.

    Raises:
        InputError: The format has no such dtype, or a name is that of the metadata.
    """
    header: dict[str, Any] = {_METADATA: dict(metadata)} if metadata else {}
    parts, end = [], 0
    for name, tensor in tensors.items():
        if tensor.dtype not in _NAMES or name == _METADATA:
            raise InputError(f'{name}: the format safetensors has no tensor of {tensor.dtype} of this name')
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        part = flat.view(torch.uint8).numpy().tobytes()
        header[name] = dict(dtype=_NAMES[tensor.dtype], shape=list(tensor.shape), data_offsets=[end, end + len(part)])
        parts.append(part)
        end += len(part)
    text = json.dumps(header, separators=(',', ':')).encode()
    text += b' ' * (-len(text) % 8)  # so the tensors begin at a multiple of 8, as from the library
    return b''.join([len(text).to_bytes(_LENGTH, 'little'), text, *parts])


def _parsed(file: BinaryIO) -> tuple[dict[str, Any], int]:
    """Returns the JSON header, and the position of the first tensor's byte."""
    whole = file.seek(0, 2)
    file.seek(0)
    length = int.from_bytes(file.read(_LENGTH), 'little')
    if whole < _LENGTH or not 2 <= length <= min(_LONGEST, whole - _LENGTH):
        raise ValueError(f'a header of {length} bytes in a file of {whole}')
    header = json.loads(file.read(length).decode(), object_pairs_hook=_without_doubles)
    if not isinstance(header, dict):
        raise ValueError('a header that is no dict')
    return header, _LENGTH + length


def _header(file: BinaryIO) -> tuple[dict[str, dict], int]:
    """Returns dtype, shape and bytes of each tensor, by name, and the position of the first tensor's byte."""
    header, start = _parsed(file)
    header.pop(_METADATA, None)
    for name, entry in header.items():
        if not isinstance(entry, dict) or entry.keys() != {'dtype', 'shape', 'data_offsets'}:
            raise ValueError(f'{name:.100} has no dtype, shape and data_offsets')
        if not isinstance(entry['dtype'], str) or entry['dtype'] not in _DTYPES:
            raise ValueError(f'{name:.100} has the dtype {entry["dtype"]!r:.20}')
        numbers = [entry['shape'], entry['data_offsets']]
        if not all(isinstance(part, list) and all(type(n) is int and 0 <= n < 2**63 for n in part) for part in numbers):
            raise ValueError(f'{name:.100} has a shape or data_offsets that are no sizes')
        if len(entry['shape']) > _MOST_DIMENSIONS or len(entry['data_offsets']) != 2:
            raise ValueError(f'{name:.100} has too many dimensions or offsets')
    return header, start


def _check_layout(header: Mapping[str, dict], size: int) -> None:
    """Raises ValueError unless the tensors fill the ``size`` bytes without gaps and overlaps, each by its shape."""
    position = 0
    for name, entry in sorted(header.items(), key=lambda item: item[1]['data_offsets']):
        begin, end = entry['data_offsets']
        if begin != position or end < begin:
            raise ValueError(f'{name:.100} has the bytes {begin} to {end}, expected from {position}')
        if prod(entry['shape']) * _DTYPES[entry['dtype']].itemsize != end - begin:
            raise ValueError(f'{name:.100} has {end - begin} bytes for {entry["shape"]!s:.100} {entry["dtype"]}')
        position = end
    if position != size:
        raise ValueError(f'{size} bytes of tensors, expected {position}')


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Returns a dict of JSON; of a name that is there twice, readers would take different values."""
    if len(whole := dict(pairs)) < len(pairs):
        raise ValueError('a name is there twice')
    return whole
