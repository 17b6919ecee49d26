"""Reading the pickles of Detectron (Caffe2): numpy arrays by name, and nothing else.

A pickle may name any importable function to be called. Here every name that such a file needs stands for a class of
this module that only takes down what it is given; arrays are made from their bytes afterwards. Any other name is
refused.
"""

import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from icconv_mm.checkpoints.safe import CheckpointError, RefusedGlobal, RestrictedUnpickler, UnsafeCheckpointError
from icconv_mm.errors import MissingFileError

_NUMBERS = 'fiu'  # kinds of numpy dtypes: floating point, integers with and without sign


def load_detectron(path: str | os.PathLike) -> dict[str, Tensor]:
    """Read the blobs of a Detectron ``.pkl`` file; nothing in it can run code.

    Args:
        path: A local file, a dict of arrays or one under the key ``blobs``, pickled by Python 2 or 3.

    Returns:
        Tensors by the name of the blob. Entries that are no arrays (a configuration beside the blobs) are left out.

    Raises:
        FileNotFoundError: There is no such file.
        UnsafeCheckpointError: The file names an object beyond numpy arrays.
        CheckpointError: The file is truncated, or no such pickle.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise MissingFileError(f'{path}: no such checkpoint file')
    try:
        with open(path, 'rb') as file:
            content = _Unpickler(file, encoding='latin1').load()
    except RefusedGlobal as refused:
        raise UnsafeCheckpointError(path, [refused.name], 'plain data and numpy arrays') from None
    except Exception as error:  # whatever opcodes out of order lead to
        raise CheckpointError(f'{path}: truncated, or not a pickle: {type(error).__name__}({error})') from None
    return _tensors(path, content)


def _tensors(path: Path, content: Any) -> dict[str, Tensor]:
    blobs = content.get('blobs', content) if isinstance(content, Mapping) else content
    if not isinstance(blobs, Mapping):
        raise CheckpointError(f'{path}: expected a dict of arrays, found {type(blobs).__name__}')
    tensors = {}
    for name, value in blobs.items():
        if isinstance(value, _Array):
            try:
                tensors[str(name)] = value.tensor()
            except (AttributeError, TypeError, ValueError, OverflowError) as error:
                raise CheckpointError(f'{path}: the array of {name!r} is damaged: {error}') from None
    if not tensors:
        raise CheckpointError(f'{path}: no arrays found; it holds {", ".join(map(repr, blobs)) or "nothing"}')
    return tensors


# --- what stands for the names in a file --------------------


class _Stand:
    """Never an instance that is called, changed or subclassed by what a file says."""

    def __setstate__(self, state):
        raise pickle.UnpicklingError('an object that has no state is given one')


class _ArrayType(_Stand):
    """Stands for ``numpy.ndarray``, which is named and not called."""

    def __new__(cls, *_):
        raise pickle.UnpicklingError('numpy.ndarray is called')


class _DType(_Stand):
    """Stands for ``numpy.dtype``: a code such as 'f4' and, in its state, the byte order."""

    def __init__(self, code, *_):
        self.code, self.order = code, '<'

    def __setstate__(self, state):
        self.order = state[1]

    def numpy(self) -> np.dtype:
        dtype = np.dtype(str(self.code)) if len(str(self.code)) <= 3 else None
        if dtype is None or dtype.kind not in _NUMBERS or dtype.itemsize > 8:
            raise ValueError(f'its type is {self.code!r}, expected numbers')
        return dtype.newbyteorder('>' if self.order == '>' else '<')


class _Array(_Stand):
    """Stands for ``numpy.core.multiarray._reconstruct``: an array, whose shape, type and bytes are its state."""

    def __init__(self, *_):
        self.state = None

    def __setstate__(self, state):
        self.state = state

    def tensor(self) -> Tensor:
        _, shape, dtype, column_major, data = self.state
        data = data.encode('latin1') if isinstance(data, str) else data
        if not isinstance(dtype, _DType) or not isinstance(data, bytes):
            raise ValueError('it holds objects instead of numbers')
        array = np.frombuffer(data, dtype.numpy()).reshape(shape, order='F' if column_major else 'C')
        return torch.from_numpy(np.ascontiguousarray(array, array.dtype.newbyteorder('=')).copy())


class _Scalar(_Stand):
    """Stands for ``numpy.core.multiarray.scalar``, of which nothing is kept."""

    def __init__(self, *_):
        pass


class _Bytes(_Stand):
    """Stands for ``_codecs.encode``, by which Python 3 writes bytes in protocol 2."""

    def __new__(cls, text, encoding):
        if encoding != 'latin1':
            raise RefusedGlobal(f'_codecs.encode({encoding})')
        return text.encode('latin1')


class _NoBytes(_Stand):
    """Stands for ``bytes``, which Python 3 calls in protocol 2 for no bytes at all."""

    def __new__(cls):
        return b''


class _Unpickler(RestrictedUnpickler):
    allowed = {
        'numpy.ndarray': _ArrayType,
        'numpy.dtype': _DType,
        '_codecs.encode': _Bytes,
        'builtins.bytes': _NoBytes,
        **{f'{package}.multiarray._reconstruct': _Array for package in ('numpy.core', 'numpy._core')},
        **{f'{package}.multiarray.scalar': _Scalar for package in ('numpy.core', 'numpy._core')},
    }
