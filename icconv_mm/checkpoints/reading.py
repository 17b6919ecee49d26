"""Reads checkpoints without running code from them, with every supported torch.

A checkpoint is a pickle, and a pickle can call any importable function and give any object a state. :func:`read` lets
``torch.load`` read its formats with this module's unpickler, which imports nothing: a name in the file stands for its
entry in :data:`_STAND_INS`. These functions make tensors, plain data, numpy arrays of numbers and mmengine's log
buffers, and :meth:`_Unpickler.load_state` checks the states of the only types that may have one.

:mod:`icconv_mm.checkpoints.loader` makes mmengine load through :func:`read`.
"""

import errno
import os
import pickle
import re
import tarfile
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING  # torch.save writes protocol 2, with the names of Python 2
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from math import prod
from pathlib import Path
from types import FunctionType, SimpleNamespace
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch
from torch import Tensor

from icconv_mm import torch_private, versions
from icconv_mm.checkpoints import safetensors
from icconv_mm.errors import InputError, naming
from icconv_mm.files import require_file

SAFETENSORS = '.safetensors'  # the suffix of that format

if versions.is_installed('mmengine'):
    from mmengine.logging import HistoryBuffer
else:

    class HistoryBuffer:
        """Replacement for mmengine's log buffer, which is not read here."""

        def __init__(self, max_length: int = 1) -> None: ...


class CheckpointError(InputError):
    """Raised if a file is no readable checkpoint (truncated, another format)."""


class UnsafeCheckpointError(CheckpointError):
    """Raised if a checkpoint names an object that is not allowed; no code of it was executed."""


class _Foreign(pickle.UnpicklingError):
    """Raised if the file names an object that is not in :data:`_STAND_INS`."""


def read(path: str | os.PathLike, map_location: Any = 'cpu') -> Any:
    """Reads a checkpoint like ``torch.load``, but runs no code from the file, with any torch.

    Args:
        path: A local file; a file ``*.safetensors`` gives its tensors by name.
        map_location: Device of the tensors, as for ``torch.load``.

    Raises:
        MissingFileError: The file does not exist.
        UnsafeCheckpointError: The file names an object beyond tensors, plain data, numpy arrays and HistoryBuffer.
        CheckpointError: The file is truncated or no checkpoint.
        InputError: ``TORCH_FORCE_WEIGHTS_ONLY_LOAD`` is set.
    """
    path = Path(path).expanduser()
    if path.suffix == SAFETENSORS:
        return _read_path(path, 'a safetensors file', lambda file: safetensors.read(file, _device(map_location)))
    if os.environ.get('TORCH_FORCE_WEIGHTS_ONLY_LOAD', '').lower() in ('1', 'y', 'yes', 'true'):
        raise InputError(
            'TORCH_FORCE_WEIGHTS_ONLY_LOAD is set, and torch then reads with its own unpickler alone: unset it '
            '(icconv_mm runs no code from a checkpoint either way)'
        )
    return _read_path(path, 'a torch checkpoint', lambda file: _read_file(file, map_location))


def read_stream(file: BinaryIO, name: str, map_location: Any = 'cpu') -> Any:
    """Reads an open file like :func:`read`; ``name``, whose suffix counts, begins the messages of errors."""
    if name.endswith(SAFETENSORS):
        return _untrusted(lambda: safetensors.read(file, _device(map_location)), name, 'a safetensors file')
    return _untrusted(lambda: _read_file(file, map_location), name, 'a torch checkpoint')


def read_metadata(path: str | os.PathLike) -> dict[str, str]:
    """Returns the texts beside the tensors of a file ``*.safetensors``, by name; raises the errors of :func:`read`."""
    return _read_path(Path(path).expanduser(), 'a safetensors file', safetensors.texts_of)


def _device(map_location: Any) -> str | torch.device:
    return map_location if isinstance(map_location, (str, torch.device)) else 'cpu'


def read_detectron(path: str | os.PathLike) -> dict[str, Tensor]:
    """Reads the blobs of a Detectron ``.pkl`` file; runs no code from it.

    Args:
        path: A local file: a dict of arrays, or one under the key ``blobs``, pickled by Python 2 or 3.

    Returns:
        Tensors by the name of the blob. Entries that are no arrays (a configuration beside the blobs) are left out.

    Raises:
        MissingFileError: The file does not exist.
        UnsafeCheckpointError: The file names an object that is not allowed in a checkpoint.
        CheckpointError: The file is truncated, or no pickle of blobs.
    """
    path = Path(path).expanduser()
    content = _read_path(path, 'a pickle', lambda file: _Unpickler(file).load())
    blobs = content.get('blobs', content) if isinstance(content, Mapping) else content
    if not isinstance(blobs, Mapping):
        raise CheckpointError(f'{path}: expected a dict of arrays, found {type(blobs).__name__}')
    tensors = {}
    for name, value in blobs.items():
        if isinstance(value, np.ndarray):
            try:
                tensors[str(name)] = torch.from_numpy(np.ascontiguousarray(value))
            except TypeError as error:  # torch has no such dtype
                raise CheckpointError(f'{path}: the array of {name!r} is damaged: {error}') from None
    if not tensors:
        raise CheckpointError(f'{path}: no arrays found; it holds {", ".join(map(repr, blobs)) or "nothing"}')
    return tensors


def _read_path(path: Path, form: str, load: Callable[[BinaryIO], Any]) -> Any:
    """Returns what ``load`` reads of a file in the format ``form``; raises the errors of :func:`read`."""
    require_file(path, 'checkpoint')
    with naming(str(path), OSError), open(path, 'rb') as file:
        return _untrusted(lambda: load(file), str(path), form)


def _untrusted(load: Callable[[], Any], name: str, form: str) -> Any:
    """Returns what ``load`` reads of ``name`` in the format ``form``; raises the errors of :func:`read`."""
    try:
        return load()
    except _Foreign as foreign:
        raise UnsafeCheckpointError(
            f'{name}: refused, and nothing in it was executed: it asks for {foreign}, '
            'but it may hold only tensors, plain data, numpy arrays and the log buffers of mmengine'
        ) from None
    except Exception as error:  # damaged bytes can raise anything
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # EINVAL: a seek before byte 0
            raise
        raise CheckpointError(f'{name}: truncated, or not {form}: {_first_line(error)}') from error


# --- torch.load with this module's unpickler


def _read_file(file: BinaryIO, map_location: Any) -> Any:
    """Reads a file by ``torch.load`` with this module's unpickler wherever torch uses Python's."""
    size_of = _sizes(file)
    storages: dict[str, _Storage] = {}

    class Unpickler:
        """Base class of torch's own unpickler, which adds ``persistent_load`` and an unused ``find_class``."""

        def __init__(self, file: BinaryIO, **_: Any) -> None:
            self.file = file

        def load(self) -> Any:
            return _Unpickler(self.file, self.persistent_load, storages, size_of).load()

    def load_beside(file: BinaryIO, **_: Any) -> Any:
        """Reads the values around the objects in the format before torch 1.6; the last one lists the storages."""
        value = _Unpickler(file).load()
        if storages and storages.keys() - set(value):
            raise pickle.UnpicklingError('a storage without its numbers')
        return value

    stand_in = SimpleNamespace(__name__='pickle', Unpickler=Unpickler, load=load_beside)
    content = torch.load(file, map_location, stand_in, weights_only=False, mmap=False)
    for memory, dtype in storages.values():
        if dtype == torch.bool:  # other bytes than 0 and 1 are no bool, and kernels rely on it
            torch.empty(0, dtype=torch.uint8, device=memory.device).set_(memory).clamp_(max=1)
    return content


def _sizes(file: BinaryIO) -> Callable[[str], int] | None:
    """Returns a function for a storage's bytes in a zip archive; None if torch itself checks the claimed sizes.

    Raises:
        _Foreign: The file is a TorchScript archive, which ``torch.load`` would give to ``torch.jit.load``.
        tarfile.TarError: The file is from before torch 0.1.10; ``torch.load`` would unpack it to the disk.
    """
    start = file.read(4)
    file.seek(0)
    if start != b'PK\x03\x04':
        if tarfile.is_tarfile(file):
            raise tarfile.TarError('a tar archive')
        return None
    archive = torch_private.ArchiveReader(file)  # torch.load's own reader, so both parse the bytes alike
    records = archive.get_all_records()
    if twice := [name for name, count in Counter(records).items() if count > 1]:
        raise pickle.UnpicklingError(f'{twice[0]} is in it twice')
    if 'constants.pkl' in records:
        raise _Foreign('code: it is a TorchScript archive')
    file.seek(0)
    return (lambda key: len(archive.get_record(f'data/{key}'))) if torch_private.BELIEVES_SIZES else None


class _Unpickler(pickle._Unpickler):
    """Unpickler that calls only functions of :data:`_STAND_INS` and sets only the state of types in :data:`_STATES`.

    It derives from the Python version of ``pickle.Unpickler``, where opcodes can be replaced. The C version hands any
    state to the ``__setstate__`` of tensors, arrays and dtypes, which trust it.
    """

    dispatch = dict(pickle._Unpickler.dispatch)
    for _opcode in (pickle.INST, pickle.OBJ, pickle.NEWOBJ_EX, pickle.EXT1, pickle.EXT2, pickle.EXT4):
        del dispatch[_opcode[0]]  # they find and call objects without the methods below

    def __init__(self, file: BinaryIO, make_storage: Callable | None = None, storages=None, size_of=None) -> None:
        super().__init__(file, encoding='latin1')  # for text that Python 2 wrote
        self.make_storage, self.storages, self.size_of = make_storage, storages, size_of

    def find_class(self, module: str, name: str) -> Any:
        module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
        if (text := f'{module}.{name}') not in _STAND_INS:
            raise _Foreign(text)
        return _STAND_INS[text]

    def persistent_load(self, identity: Any) -> '_Storage':
        """Returns the storage ``('storage', type, key, location, count)``; the old format may add None for a view."""
        word, kind, key, location, count, *view = identity
        kinds = [type(part) for part in (word, kind, key, location, count)]
        if kinds != [str, _Storage, str, str, int] or word != 'storage' or view not in ([], [None]):
            raise pickle.UnpicklingError('a persistent id that is no storage')
        if key not in self.storages:
            if self.size_of and self.size_of(key) != count * kind.dtype.itemsize:
                raise pickle.UnpicklingError(f'storage {key} has {self.size_of(key)} bytes, not {count} {kind.dtype}')
            storage = self.make_storage(identity)
            self.storages[key] = _Storage(torch_private.untyped(storage), storage.dtype)
        return self.storages[key]

    def load_call(self) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if type(function) is not FunctionType or type(arguments) is not tuple:  # functions come from find_class alone
            raise pickle.UnpicklingError(f'a call of a {type(function).__name__}')
        self.append(function(*arguments))

    def load_state(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        set_state = _STATES.get(np.dtype if isinstance(target, np.dtype) else type(target))
        if set_state is None:
            raise pickle.UnpicklingError(f'a state of a {type(target).__name__}')
        set_state(target, state)

    def load_setitem(self) -> None:
        self._set_items([self.stack.pop(-2), self.stack.pop()])

    def load_setitems(self) -> None:
        self._set_items(self.pop_mark())

    def _set_items(self, items: list) -> None:
        """Sets items of dicts, but not of tensors and arrays."""
        if not isinstance(self.stack[-1], dict):
            raise pickle.UnpicklingError(f'items of a {type(self.stack[-1]).__name__}')
        self.stack[-1].update(zip(items[::2], items[1::2]))

    dispatch |= {pickle.REDUCE[0]: load_call, pickle.NEWOBJ[0]: load_call, pickle.BUILD[0]: load_state}
    dispatch |= {pickle.SETITEM[0]: load_setitem, pickle.SETITEMS[0]: load_setitems}


# --- tensors


class _Storage(NamedTuple):
    """Memory of one or more tensors; without memory, the replacement for ``torch.FloatStorage`` and the like."""

    memory: torch.UntypedStorage | None
    dtype: torch.dtype


def _tensor(storage, offset, size, stride, requires_grad=False, _=None, *others) -> Tensor:
    """Replaces ``torch._utils._rebuild_tensor``, ``_v2``, ``_v3``: a view of a storage, within its bounds."""
    numbers = (offset, *size, *stride)
    if type(storage) is not _Storage or any(type(number) is not int or not 0 <= number < 2**48 for number in numbers):
        raise pickle.UnpicklingError('a tensor without storage, shape and strides')
    if any(other.get('conj') or other.get('neg') for other in others if type(other) is dict):
        raise pickle.UnpicklingError('a tensor with a lazy conjugation or negation: save resolve_conj() of it')
    memory, dtype = storage.memory, next((other for other in others if type(other) is torch.dtype), storage.dtype)
    count, held = prod(size), memory.nbytes() // dtype.itemsize
    last = offset + sum((number - 1) * step for number, step in zip(size, stride, strict=True))
    if len(size) > 64 or (count and last >= held):
        raise pickle.UnpicklingError(f'a tensor of {list(size)} in a storage of {held} numbers')
    if dtype == torch.bool and storage.dtype != torch.bool:
        raise pickle.UnpicklingError('a tensor of bools in a storage of others')
    tensor = torch.empty(0, dtype=dtype, device=memory.device).set_(memory, offset, size, stride)
    return tensor.requires_grad_(requires_grad)


def _parameter(data: Tensor, requires_grad: bool = True, *_: Any) -> torch.nn.Parameter:
    return torch.nn.Parameter(data.detach(), requires_grad)


def _tensor_of_type(function: Any, kind: Any, arguments: tuple, *_: Any) -> Tensor:
    """Replaces ``torch._tensor._rebuild_from_type_v2``: a tensor with its own attributes, which are left out."""
    if function not in (_tensor, _parameter) or kind not in ('torch.Tensor', _parameter):
        raise _Foreign('a tensor of another type')
    return function(*arguments)


# --- numpy, mmengine, plain objects


def _dtype(code: Any, *_: Any) -> np.dtype:
    """Replaces ``numpy.dtype``: returns a copy, because the byte order is set as a state and the original is shared."""
    code = code.decode() if type(code) is bytes else code
    if type(code) is not str or (dtype := np.dtype(code, False, True)).kind not in 'fiubc' or dtype.itemsize > 16:
        raise pickle.UnpicklingError(f'a numpy dtype {code!r:.20}, which has no numbers')
    return dtype


def _set_byte_order(dtype: np.dtype, state: tuple) -> None:
    order = state[1].decode() if type(state[1]) is bytes else state[1]
    if order not in ('<', '>', '|') or any(part is not None for part in state[2:5]):
        raise pickle.UnpicklingError('a numpy dtype with fields')
    dtype.__setstate__((3, order, None, None, None, -1, -1, 0))


def _array(kind: Any, *_: Any) -> np.ndarray:
    """Replaces ``numpy.core.multiarray._reconstruct``: shape and data follow with the state."""
    if kind != 'numpy.ndarray':
        raise pickle.UnpicklingError('a numpy array of another type')
    return np.zeros(0, np.uint8)


def _set_array(array: np.ndarray, state: tuple) -> None:
    """Checks what numpy trusts, a valid shape and fitting dtype and bytes, and sets the array's state."""
    _, shape, dtype, column_major, data = state
    data = data.encode('latin1') if type(data) is str else data
    if not isinstance(dtype, np.dtype) or type(data) is not bytes or any(type(side) is not int for side in shape):
        raise pickle.UnpicklingError('a numpy array without numbers')
    if len(shape) > 32 or min(shape, default=0) < 0 or prod(shape) * dtype.itemsize != len(data):
        raise pickle.UnpicklingError(f'a numpy array of {list(shape)} {dtype} with {len(data)} bytes')
    if dtype.kind == 'b':  # other bytes than 0 and 1 are no bool
        data = (np.frombuffer(data, np.uint8) != 0).tobytes()
    array.__setstate__((1, tuple(shape), dtype, bool(column_major), data))


def _numpy_scalar(dtype: np.dtype, data: Any) -> np.generic:
    _set_array(array := np.zeros(0, np.uint8), (1, (), dtype, False, data))
    return array[()]


def _log() -> HistoryBuffer:
    return HistoryBuffer(max_length=1)


def _set_log(log: HistoryBuffer, state: dict) -> None:
    values, counts, longest = state['_log_history'], state['_count_history'], state.get('max_length', 1000000)
    if not (type(values) is type(counts) is np.ndarray and values.ndim == 1 and values.shape == counts.shape):
        raise pickle.UnpicklingError('a log buffer without values and their counts')
    if type(longest) is not int or longest < 1:
        raise pickle.UnpicklingError(f'a log buffer of the length {longest!r:.40}')
    log._log_history, log._count_history, log.max_length = values, counts, longest


def _statistic_of_log(owner: Any, name: Any) -> None:
    """Replaces ``getattr``, which mmengine's logs put into every checkpoint for statistics that all logs have."""
    if owner is not _log or name not in ('min', 'max', 'current', 'mean'):
        raise _Foreign('builtins.getattr')


def _set_versions(weights: OrderedDict, state: dict) -> None:
    """Sets the versions of modules by name, which ``Module.state_dict`` attaches to its result; drops other state."""
    if isinstance(metadata := state.get('_metadata'), dict):
        weights._metadata = OrderedDict((name, value) for name, value in metadata.items() if isinstance(value, dict))


def _bytes(text: str = '', encoding: str = 'latin1') -> bytes:
    """Replaces ``_codecs.encode``, which protocol 2 writes for bytes, and ``bytes``, which it writes for empty ones."""
    if encoding != 'latin1':
        raise _Foreign(f'_codecs.encode({encoding})')
    return text.encode('latin1')


# Name in a file -> the function that replaces it, or a value that is the argument of one. It has no types, because a
# type allows more calls than its constructor.
_STAND_INS: dict[str, Any] = {
    **dict.fromkeys((f'torch._utils._rebuild_tensor{version}' for version in ('', '_v2', '_v3')), _tensor),
    'torch._utils._rebuild_parameter': _parameter,
    'torch._utils._rebuild_parameter_with_state': _parameter,
    'torch.nn.parameter.Parameter': _parameter,
    'torch._tensor._rebuild_from_type_v2': _tensor_of_type,
    'torch.Tensor': 'torch.Tensor',
    'torch.Size': lambda sizes=(): torch.Size(sizes),
    'torch.device': lambda kind, *index: torch.device(kind, *index),
    'torch.storage.UntypedStorage': _Storage(None, torch.uint8),
    'numpy.dtype': _dtype,
    'numpy.ndarray': 'numpy.ndarray',
    'mmengine.logging.history_buffer.HistoryBuffer': _log,
    'builtins.getattr': _statistic_of_log,
    'builtins.set': lambda items=(): set(items),
    'builtins.frozenset': lambda items=(): frozenset(items),
    'builtins.complex': lambda real, imaginary: complex(real, imaginary),
    'builtins.bytes': _bytes,
    '_codecs.encode': _bytes,
    'collections.OrderedDict': lambda pairs=(): OrderedDict(pairs),
    'collections.Counter': lambda counts=(): Counter(counts),
}
for _package in ('numpy.core.multiarray', 'numpy._core.multiarray'):  # numpy 1 and numpy 2
    _STAND_INS |= {f'{_package}._reconstruct': _array, f'{_package}.scalar': _numpy_scalar}
for _name, _kind in vars(torch).items():
    if isinstance(_kind, torch.dtype) and 'q' not in _name:  # quantised numbers mean nothing without their scale
        _STAND_INS[f'torch.{_name}'] = _kind
for _name, _kind in dict(Char='int8', Byte='uint8', ComplexFloat='cfloat', ComplexDouble='cdouble').items():
    _STAND_INS[f'torch.{_name}Storage'] = _Storage(None, getattr(torch, _kind))
for _name in ('Double', 'Float', 'Half', 'BFloat16', 'Long', 'Int', 'Short', 'Bool'):
    _STAND_INS[f'torch.{_name}Storage'] = _Storage(None, getattr(torch, _name.lower()))

_STATES: dict[type, Callable[[Any, Any], None]] = {
    np.dtype: _set_byte_order,
    np.ndarray: _set_array,
    HistoryBuffer: _set_log,
    OrderedDict: _set_versions,
}


def _first_line(error: Exception) -> str:
    message_of = re.split(r'\.\s|\n', str(error).strip())[0]
    return f'{type(error).__name__}({message_of:.200})'
