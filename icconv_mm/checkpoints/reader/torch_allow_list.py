"""What ``torch.load(weights_only=True)`` may make of the files of mmengine, where other code calls it.

mmengine writes numpy arrays and log buffers. Under the names of numpy, torch's own reader gets classes of this module,
which check what a file says before there is an array: numpy's own trust the state that they are given.
"""

import re
from typing import Any

import numpy as np
import torch

from icconv_mm.checkpoints.reader.log_buffers import HistoryBuffer
from icconv_mm.checkpoints.reader.plain_objects import STATISTICS, array_of, numpy_dtype
from icconv_mm.checkpoints.reader.plain_pickle import PickleError, Refusal


class DType:
    """Stands for ``numpy.dtype``: a code, and a state that has the byte order."""

    def __init__(self, code: Any, *_: Any) -> None:
        self._pending = numpy_dtype(code)
        self.dtype: np.dtype | None = None

    def __setstate__(self, state: Any) -> None:
        self.dtype = self._pending.made(state)


class Array(np.ndarray):
    """A numpy array whose shape, type and bytes are checked as they are set; it is saved as a plain one."""

    def __new__(cls, kind: Any, *_: Any) -> 'Array':
        if kind is not Array:
            raise PickleError('a numpy array of another type')
        return super().__new__(cls, (0,), np.uint8)

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, column_major, data = state
        array = array_of(shape, _dtype(dtype), data, 'F' if column_major else 'C')
        super().__setstate__((1, array.shape, array.dtype, False, array.tobytes()))

    def __reduce__(self) -> tuple:
        return self.view(np.ndarray).__reduce__()


def scalar(dtype: Any, data: Any) -> np.generic:
    """Stands for ``numpy.core.multiarray.scalar``."""
    return array_of((), _dtype(dtype), data)[()]


def history_buffer_method(owner: Any, name: str) -> Any:
    """Stands under the name ``builtins.getattr``, which ``HistoryBuffer.__getstate__`` puts into every checkpoint."""
    if owner is HistoryBuffer and name in STATISTICS:
        return getattr(HistoryBuffer, name)
    raise Refusal(f'getattr({getattr(owner, "__name__", type(owner).__name__)},{name})')


def _dtype(stand: Any) -> np.dtype | None:
    return stand.dtype if isinstance(stand, DType) else None


def allow_in_torch() -> None:
    """Add these to the allow-list of ``torch.load(weights_only=True)``; needs torch >= 2.6, the first to take names."""
    if tuple(int(part) for part in re.findall(r'\d+', torch.__version__)[:2]) < (2, 6):
        return
    named = {
        'mmengine.logging.history_buffer.HistoryBuffer': HistoryBuffer,
        'builtins.getattr': history_buffer_method,
        'numpy.ndarray': Array,
        'numpy.dtype': DType,
    }
    for package in ('numpy.core', 'numpy._core'):  # the name in numpy 1 and in numpy 2
        named[f'{package}.multiarray._reconstruct'] = Array
        named[f'{package}.multiarray.scalar'] = scalar
    torch.serialization.add_safe_globals([(stand, name) for name, stand in named.items()])
