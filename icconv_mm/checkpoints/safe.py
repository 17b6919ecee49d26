"""Reading checkpoints without running code from them.

A checkpoint is a pickle, and a pickle may name any importable function to be called. ``torch.load(weights_only=True)``
answers only for tensors and plain data, which refuses every file that mmengine writes: the message hub in it holds
:class:`mmengine.logging.HistoryBuffer` objects and numpy arrays. This module allows exactly those, on every torch:

* torch >= 2.6: they are added to torch's own allow-list, so that every ``torch.load`` of the process accepts them;
* older torch: an unpickler with the same list takes the place of ``pickle`` in :func:`load`.

:func:`install` makes mmengine load through :func:`load`, by its public ``CheckpointLoader.register_scheme``.
"""

import os
import pickle
import re
import sys
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING  # torch.save writes protocol 2, with the names of Python 2
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlparse

import numpy as np
import torch

from icconv_mm import versions
from icconv_mm.errors import InputError, MissingFileError, naming

_STATISTICS = ('min', 'max', 'current', 'mean')
_ALLOWED_KINDS = 'tensors, plain data, numpy arrays and the log buffers of mmengine'


if versions.is_installed('mmengine'):
    from mmengine.logging import HistoryBuffer
else:

    class HistoryBuffer:
        """Stands for mmengine's in the checkpoints that it wrote: a log that nobody reads here, and is left behind."""

        min = max = current = mean = None

        def __setstate__(self, state: Any) -> None:
            """Keeps nothing of it."""


class CheckpointError(InputError):
    """A file that is no readable checkpoint (truncated, another format)."""


class UnsafeCheckpointError(CheckpointError):
    """A checkpoint that names objects which are not allowed; nothing of it was executed."""

    def __init__(self, path: Path, names: Iterable[str], allowed: str):
        super().__init__(
            f'{path}: refused, and nothing in it was executed: it asks for {", ".join(names)}, but it may hold only '
            f'{allowed}'
        )


def load(path: str | os.PathLike, map_location: Any = 'cpu') -> Any:
    """Read a checkpoint; like ``torch.load``, but nothing in the file can run code.

    Args:
        path: A local file.
        map_location: As for ``torch.load``.

    Raises:
        FileNotFoundError: There is no such file.
        UnsafeCheckpointError: The file names an object beyond tensors, plain data, numpy arrays and HistoryBuffer.
        CheckpointError: The file is truncated or no checkpoint at all.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise MissingFileError(f'{path}: no such checkpoint file')
    try:
        with naming(str(path), OSError):
            return _torch_load(path, map_location)
    except pickle.UnpicklingError as error:
        if refused := _refused_globals(path, error):
            raise UnsafeCheckpointError(path, refused, _ALLOWED_KINDS) from None
        raise CheckpointError(f'{path}: not a checkpoint that can be read safely: {_first_line(error)}') from None
    except (RuntimeError, EOFError, KeyError, AttributeError, ValueError) as error:
        raise CheckpointError(f'{path}: truncated, or not a torch checkpoint: {_first_line(error)}') from None


def activate() -> None:
    """Extend torch's allow-list, and let mmengine load through :func:`load` if its runner is in use already."""
    allow_in_torch()
    if 'mmengine.runner.checkpoint' in sys.modules:
        install()


def allow_in_torch() -> None:
    """Add mmengine's objects to the allow-list of ``torch.load(weights_only=True)``; needs torch >= 2.6."""
    if _TORCH_TAKES_NAMES:
        torch.serialization.add_safe_globals([(obj, name) for name, obj in _allowed().items()])


def install() -> None:
    """Let mmengine read local files and URLs through :func:`load`, in every tool and inferencer of this process."""
    from mmengine.runner import CheckpointLoader

    allow_in_torch()
    CheckpointLoader.register_scheme(prefixes='', loader=load_from_local, force=True)
    CheckpointLoader.register_scheme(prefixes=('http://', 'https://'), loader=load_from_http, force=True)


def load_from_local(filename: str, map_location: Any = None) -> Any:
    """The ``CheckpointLoader`` of local files (mmengine prints the last word of this function's name)."""
    return load(filename, map_location)


def load_from_http(filename: str, map_location: Any = None) -> Any:
    """The ``CheckpointLoader`` of URLs: one rank of each machine downloads into torch's hub folder, then all read."""
    from mmengine.dist import barrier, get_local_rank

    path = Path(torch.hub.get_dir(), 'checkpoints', Path(urlparse(filename).path).name)
    if get_local_rank() == 0 and not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(filename, str(path), progress=os.isatty(2))
    barrier()
    return load(path, map_location)


# --- what is allowed --------------------


def _history_buffer_method(owner: Any, name: str) -> Any:
    """Stands under the name ``builtins.getattr``, which ``HistoryBuffer.__getstate__`` puts into every checkpoint."""
    if owner is HistoryBuffer and name in _STATISTICS:
        return getattr(HistoryBuffer, name)
    raise RefusedGlobal(f'getattr({getattr(owner, "__name__", type(owner).__name__)},{name})')


def _allowed() -> dict[str, Any]:
    """Dotted name in the pickle -> the object it stands for."""
    array = np.zeros(1)
    reconstruct = array.__reduce__()[0]
    scalar = array[0].__reduce__()[0]
    allowed = {
        'mmengine.logging.history_buffer.HistoryBuffer': HistoryBuffer,
        'builtins.getattr': _history_buffer_method,
        'numpy.ndarray': np.ndarray,
        'numpy.dtype': np.dtype,
    }
    for package in ('numpy.core', 'numpy._core'):  # the name in numpy 1 and in numpy 2
        allowed[f'{package}.multiarray._reconstruct'] = reconstruct
        allowed[f'{package}.multiarray.scalar'] = scalar
    for code in ('f8', 'f4', 'f2', 'i8', 'i4', 'i2', 'i1', 'u8', 'u4', 'u2', 'u1', '?'):
        kind = type(np.dtype(code))  # torch looks up the type of an object before it sets its state
        allowed[f'{kind.__module__}.{kind.__qualname__}'] = kind
    return allowed


class RefusedGlobal(pickle.UnpicklingError):
    """A pickle asks for the object ``name``, which is not allowed; the message is as torch writes it in its own."""

    def __init__(self, name: str):
        super().__init__(f'GLOBAL {name}')
        self.name = name


class RestrictedUnpickler(pickle.Unpickler):
    """Knows no names but those of ``allowed``: dotted name in Python 3 -> what it stands for."""

    allowed: Mapping[str, Any] = {}

    def find_class(self, module: str, name: str) -> Any:
        module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
        if f'{module}.{name}' not in self.allowed:
            raise RefusedGlobal(f'{module}.{name}')
        return self.allowed[f'{module}.{name}']


# torch 2.6 is the first whose add_safe_globals takes (object, name) pairs, which the two homes of numpy need.
_TORCH_TAKES_NAMES = tuple(int(part) for part in re.findall(r'\d+', torch.__version__)[:2]) >= (2, 6)


def _torch_load(path: Path, map_location: Any) -> Any:
    if _TORCH_TAKES_NAMES:
        allow_in_torch()
        return torch.load(path, map_location=map_location, weights_only=True)
    return torch.load(path, map_location=map_location, pickle_module=_restricted_pickle(), weights_only=False)


def _encode_latin1(text: str, encoding: str) -> bytes:
    """Stands under the name ``_codecs.encode``, by which protocol 2 writes bytes; newer torch allows it itself."""
    if encoding != 'latin1':
        raise RefusedGlobal(f'_codecs.encode({encoding})')
    return text.encode('latin1')


def _restricted_pickle() -> SimpleNamespace:
    """What torch < 2.6 takes as ``pickle_module`` in place of ``pickle``: its unpickler knows only the allow-list."""
    from torch._weights_only_unpickler import _get_allowed_globals  # of releases that no longer change

    class Unpickler(RestrictedUnpickler):
        allowed = {**_get_allowed_globals(), **_allowed(), '_codecs.encode': _encode_latin1}

    return SimpleNamespace(
        __name__='icconv_mm_restricted_pickle',
        Unpickler=Unpickler,
        load=lambda file, **options: Unpickler(file, **options).load(),
        UnpicklingError=pickle.UnpicklingError,
    )


# --- what the errors say --------------------


def _refused_globals(path: Path, error: Exception) -> list[str]:
    """The names that the unpickler refused: all of them where torch can list them, else the first."""
    if hasattr(torch.serialization, 'get_unsafe_globals_in_checkpoint'):
        with suppress(Exception):  # not a zip archive: the message is all there is
            if names := torch.serialization.get_unsafe_globals_in_checkpoint(str(path)):
                return sorted(names)
    return re.findall(r'GLOBAL (\S+)', str(error))


def _first_line(error: Exception) -> str:
    """What is wrong, without the paragraphs of advice in which torch wraps some messages."""
    text = str(error).split('WeightsUnpickler error:')[-1].strip()
    sentence = re.split(r'\.\s|\n', text)[0]
    return f'{type(error).__name__}({sentence})'
