"""What a checkpoint may hold beside plain data, and how each is made: from numbers and bytes that were checked.

Tensors with a storage in memory, parameters, numpy arrays and scalars of numbers, the log buffers of mmengine. A name
in the file chooses a function of this module; nothing else is called.
"""

from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from functools import cache
from math import prod
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from icconv_mm.checkpoints.reader.log_buffers import HistoryBuffer
from icconv_mm.checkpoints.reader.plain_pickle import Name, Pending, PickleError, Refusal

STATISTICS = ('min', 'max', 'current', 'mean')
_MAX_DIMS = 64  # what torch's iterators take
_MAX_EXPANDED = 1 << 24  # numbers of a tensor that has fewer in its storage: strides of 0
_NUMBERS = 'fiubc'  # kinds of numpy dtypes


@cache
def item_size(dtype: torch.dtype) -> int:
    """Bytes of one number."""
    return torch.empty(0, dtype=dtype).element_size()


class Storage(NamedTuple):
    """The memory of one or more tensors, and how many items of which type it holds."""

    memory: torch.UntypedStorage
    dtype: torch.dtype


# --- tensors


def tensor_of(
    storage: Any, offset: int, size: tuple, stride: tuple, *_: Any, dtype: torch.dtype | None = None
) -> Tensor:
    """``torch._utils._rebuild_tensor``: a view into a storage that has all its numbers."""
    if type(storage) is not Storage:
        raise PickleError('a tensor without a storage')
    memory, dtype = storage.memory, dtype or storage.dtype
    if type(size) not in (tuple, torch.Size) or type(stride) is not tuple or not len(size) == len(stride) <= _MAX_DIMS:
        raise PickleError('a tensor whose shape and strides do not fit')
    if any(type(number) is not int or not 0 <= number < 2**48 for number in (offset, *size, *stride)):
        raise PickleError('a tensor with a negative size')
    count, held = prod(size), memory.nbytes() // item_size(dtype)
    last = offset + sum((number - 1) * step for number, step in zip(size, stride))
    if count and last >= held:
        raise PickleError(f'a tensor of {list(size)} that reaches beyond the {held} numbers of its storage')
    if count > max(held, _MAX_EXPANDED):
        raise PickleError(f'a tensor of {list(size)} made of {held} numbers')
    return torch.empty(0, dtype=dtype, device=memory.device).set_(memory, offset, size, stride)


def _tensor_v2(storage, offset, size, stride, requires_grad, *_) -> Tensor:
    return _with_gradient(tensor_of(storage, offset, size, stride), requires_grad)


def _tensor_v3(storage, offset, size, stride, requires_grad, hooks, dtype, *_) -> Tensor:
    if type(dtype) is not torch.dtype:
        raise PickleError('a tensor without a dtype')
    return _with_gradient(tensor_of(storage, offset, size, stride, dtype=dtype), requires_grad)


def _parameter(data, requires_grad=True, *_) -> torch.nn.Parameter:
    if type(data) is not Tensor:
        raise PickleError('a parameter without a tensor')
    data = data.detach()
    return torch.nn.Parameter(data, bool(requires_grad) and _differentiable(data))


def _tensor_of_type(function, kind, arguments, *_) -> Tensor:
    """``torch._tensor._rebuild_from_type_v2``: a tensor with attributes of its own, which are left out."""
    if type(function) is not Name or type(kind) is not Name or type(arguments) is not tuple:
        raise PickleError('a tensor of a type that is no name')
    if function.text not in _TENSORS or kind.text not in ('torch.Tensor', 'torch.nn.parameter.Parameter'):
        raise Refusal(kind.text if function.text in _TENSORS else function.text)
    return _TENSORS[function.text](*arguments)


def _with_gradient(tensor: Tensor, requires_grad: Any) -> Tensor:
    return tensor.requires_grad_(bool(requires_grad) and _differentiable(tensor))


def _differentiable(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()


_TENSORS: dict[str, Callable[..., Tensor]] = {
    'torch._utils._rebuild_tensor': tensor_of,
    'torch._utils._rebuild_tensor_v2': _tensor_v2,
    'torch._utils._rebuild_tensor_v3': _tensor_v3,
    'torch._utils._rebuild_parameter': _parameter,
    'torch._utils._rebuild_parameter_with_state': _parameter,
    'torch.nn.parameter.Parameter': _parameter,
}

# --- numpy


def numpy_dtype(code: Any, *_) -> Pending:
    """``numpy.dtype``: a code such as 'f4'; the state has the byte order, and nothing else that counts."""
    code = code.decode('latin-1') if type(code) is bytes else code
    if type(code) is not str or len(code) > 4:
        raise PickleError('a numpy dtype without a code')

    def made(state: Any) -> np.dtype:
        if type(state) is not tuple or len(state) < 2 or any(each is not None for each in state[2:5]):
            raise PickleError('a numpy dtype with fields')
        dtype = np.dtype(code)
        if dtype.kind not in _NUMBERS or dtype.itemsize > 16 or dtype.hasobject:
            raise PickleError(f'a numpy dtype {code!r}, which has no numbers')
        return dtype.newbyteorder('>' if state[1] in ('>', b'>') else '=')

    return Pending(made)


def _numpy_array(kind=None, *_) -> Pending:
    """``numpy.core.multiarray._reconstruct``: the state has shape, type and bytes."""
    if type(kind) is not Name or kind.text != 'numpy.ndarray':
        raise PickleError('a numpy array of another type')

    def made(state: Any) -> np.ndarray:
        if type(state) is not tuple or len(state) != 5:
            raise PickleError('a numpy array without a state')
        _, shape, dtype, column_major, data = state
        return array_of(shape, dtype, data, 'F' if column_major else 'C')

    return Pending(made)


def _numpy_scalar(dtype, data) -> np.generic:
    return array_of((), dtype, data)[()]


def array_of(shape: Any, dtype: Any, data: Any, order: str = 'C') -> np.ndarray:
    """A writable array in this machine's byte order from exactly its bytes."""
    data = data.encode('latin-1') if type(data) is str else data
    if not isinstance(dtype, np.dtype) or type(data) is not bytes or type(shape) is not tuple:
        raise PickleError('a numpy array of objects instead of numbers')
    if any(type(side) is not int or side < 0 for side in shape) or len(shape) > 32:
        raise PickleError('a numpy array with a negative size')
    if prod(shape) * dtype.itemsize != len(data):
        raise PickleError(f'a numpy array of {list(shape)} {dtype} with {len(data)} bytes')
    if dtype.kind == 'b':  # any other byte is no bool
        return (np.ndarray(shape, np.uint8, data, order=order) != 0).copy(order)
    return np.ndarray(shape, dtype, data, order=order).astype(dtype.newbyteorder('='), order)


# --- plain objects


def _ordered_dict(pairs: Any = ()) -> OrderedDict:
    made = OrderedDict()
    for pair in pairs:
        key, value = pair
        made[_text_key(key)] = value
    return made


def _counter(counts: Any = None) -> Counter:
    if type(counts) not in (dict, type(None)):
        raise PickleError('a Counter of something else than counts')
    return Counter(counts)


def _text_key(key: Any) -> Any:
    if type(key) not in (str, int):
        raise PickleError(f'a key of type {type(key).__name__}')
    return key


def _set(items: Any = ()) -> set:
    if any(type(item) not in (str, int, float, bool, type(None)) for item in items):
        raise PickleError('a set of something else than text and numbers')
    return set(items)


def _bytes_of_text(text: Any = '', encoding: Any = 'latin1') -> bytes:
    """``_codecs.encode``, by which protocol 2 writes bytes, and ``bytes``, of which it writes the empty ones."""
    if encoding != 'latin1' or type(text) is not str:
        raise Refusal(f'_codecs.encode({encoding})')
    return text.encode('latin-1')


def _no_bytes() -> bytes:
    return b''


def _complex(real: float, imaginary: float) -> complex:
    return complex(float(real), float(imaginary))


def _size(sizes: Any = ()) -> torch.Size:
    if type(sizes) not in (tuple, list) or any(type(size) is not int for size in sizes):
        raise PickleError('a torch.Size of something else than integers')
    return torch.Size(sizes)


def _device(kind: Any, index: Any = None) -> torch.device:
    if type(kind) is not str or type(index) not in (int, type(None)):
        raise PickleError('a torch.device without a name')
    return torch.device(kind) if index is None else torch.device(kind, index)


# --- mmengine


def _statistic_of_buffer(owner: Any, name: Any) -> Callable:
    """``getattr``, which ``HistoryBuffer.__getstate__`` puts into every checkpoint for its statistics."""
    if type(owner) is Name and owner.text == _BUFFER and name in STATISTICS:
        return getattr(HistoryBuffer, name)
    shown = owner.text.rpartition('.')[2] if type(owner) is Name else type(owner).__name__
    raise Refusal(f'getattr({shown},{name})')


def _history_buffer(*_) -> Pending:
    def made(state: Any) -> HistoryBuffer:
        if type(state) is not dict:
            raise PickleError('a log buffer without a state')
        buffer = HistoryBuffer(max_length=_length(state.get('_max_length', 1000000)))
        buffer._log_history, buffer._count_history = (_series(state.get(f'_{key}_history')) for key in ('log', 'count'))
        if len(buffer._log_history) != len(buffer._count_history):
            raise PickleError('a log buffer whose values and counts differ in number')
        return buffer

    return Pending(made)


def _length(value: Any) -> int:
    if type(value) is not int or value < 1:
        raise PickleError(f'a log buffer of the length {value!r:.40}')
    return value


def _series(values: Any) -> np.ndarray:
    if not isinstance(values, np.ndarray) or values.ndim != 1:
        raise PickleError('a log buffer without a list of values')
    return values


_BUFFER = 'mmengine.logging.history_buffer.HistoryBuffer'

# --- the tables

NUMPY: Mapping[str, Callable] = {
    'numpy.dtype': numpy_dtype,
    '_codecs.encode': _bytes_of_text,
    'builtins.bytes': _no_bytes,
    **{f'{package}.multiarray._reconstruct': _numpy_array for package in ('numpy.core', 'numpy._core')},
    **{f'{package}.multiarray.scalar': _numpy_scalar for package in ('numpy.core', 'numpy._core')},
}
CALLS: Mapping[str, Callable] = {
    **NUMPY,
    **_TENSORS,
    'torch._tensor._rebuild_from_type_v2': _tensor_of_type,
    'torch.Size': _size,
    'torch.device': _device,
    'collections.OrderedDict': _ordered_dict,
    'collections.Counter': _counter,
    'builtins.set': _set,
    'builtins.frozenset': lambda items=(): frozenset(_set(items)),
    'builtins.complex': _complex,
    'builtins.getattr': _statistic_of_buffer,
    _BUFFER: _history_buffer,
}
STORAGES: Mapping[str, torch.dtype] = {
    'torch.DoubleStorage': torch.float64,
    'torch.FloatStorage': torch.float32,
    'torch.HalfStorage': torch.float16,
    'torch.BFloat16Storage': torch.bfloat16,
    'torch.LongStorage': torch.int64,
    'torch.IntStorage': torch.int32,
    'torch.ShortStorage': torch.int16,
    'torch.CharStorage': torch.int8,
    'torch.ByteStorage': torch.uint8,
    'torch.BoolStorage': torch.bool,
    'torch.ComplexFloatStorage': torch.complex64,
    'torch.ComplexDoubleStorage': torch.complex128,
    'torch.storage.UntypedStorage': torch.uint8,
}
_NAMED_ONLY = ('numpy.ndarray', 'torch.Tensor', *STORAGES)  # arguments of the calls above
_DTYPES = {f'torch.{name}': kind for name, kind in vars(torch).items() if isinstance(kind, torch.dtype)}
DTYPES: Mapping[str, torch.dtype] = {name: kind for name, kind in _DTYPES.items() if 'q' not in name.split('.')[1]}


def constants(names: tuple[str, ...] = _NAMED_ONLY) -> dict[str, Any]:
    """What stands for itself: dtypes, and the names that are given to calls as they are."""
    return {**DTYPES, **{name: Name(*name.rsplit('.', 1)) for name in names}}
