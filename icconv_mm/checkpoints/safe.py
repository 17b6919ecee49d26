"""Reading checkpoints without running code from them.

A checkpoint is a pickle, and a pickle may name any importable function to be called. :func:`load` does not unpickle: it
reads both formats of ``torch.save`` by itself, and makes only tensors, plain data, numpy arrays of numbers and the log
buffers that mmengine writes (:mod:`icconv_mm.checkpoints.reader`). That does not depend on the version of torch.

:func:`install` makes mmengine load through :func:`load`, by its public ``CheckpointLoader.register_scheme``.
"""

import errno
import importlib.util
import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlparse

import torch

from icconv_mm.checkpoints.reader.plain_pickle import ForeignNames
from icconv_mm.checkpoints.reader.torch_allow_list import allow_in_torch
from icconv_mm.checkpoints.reader.torch_files import read_torch_file
from icconv_mm.errors import InputError, naming
from icconv_mm.utils.files import require_file

_ALLOWED_KINDS = 'tensors, plain data, numpy arrays and the log buffers of mmengine'
_CHECKPOINTS_OF_MMENGINE = 'mmengine.runner.checkpoint'


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
    """Read a checkpoint; like ``torch.load``, but nothing in the file can run code, with any torch.

    Args:
        path: A local file.
        map_location: Device of the tensors, as for ``torch.load``.

    Raises:
        MissingFileError: There is no such file.
        UnsafeCheckpointError: The file names an object beyond tensors, plain data, numpy arrays and HistoryBuffer.
        CheckpointError: The file is truncated or no checkpoint at all.
    """
    with opened(Path(path).expanduser(), 'a torch checkpoint', _ALLOWED_KINDS) as file:
        return read_torch_file(file, map_location)


@contextmanager
def opened(path: Path, form: str, allowed: str) -> Iterator[BinaryIO]:
    """A file from anywhere, to be read as ``form``, which may hold only what ``allowed`` says; errors name it.

    Raises:
        MissingFileError, UnsafeCheckpointError, CheckpointError: As :func:`load`.
    """
    require_file(path, 'checkpoint')
    with naming(str(path), OSError), open(path, 'rb') as file:
        try:
            yield file
        except ForeignNames as foreign:
            raise UnsafeCheckpointError(path, foreign.names, allowed) from None
        except Exception as error:  # whatever bytes out of order lead to
            if isinstance(error, OSError) and error.errno != errno.EINVAL:  # of the disk; that one: a place before 0
                raise
            raise CheckpointError(f'{path}: truncated, or not {form}: {_first_line(error)}') from error


def install_with_runner() -> None:
    """Extend torch's allow-list, and let mmengine load through :func:`load` from the first import of its runner on.

    Importing the runner here would take seconds that the use of a layer does not need.
    """
    allow_in_torch()
    if _CHECKPOINTS_OF_MMENGINE in sys.modules:
        install()
    elif not any(isinstance(finder, _InstallsWithRunner) for finder in sys.meta_path):
        sys.meta_path.insert(0, _InstallsWithRunner())


class _InstallsWithRunner(MetaPathFinder):
    """Waits for the import of mmengine's loading of checkpoints, and calls :func:`install` after it."""

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> ModuleSpec | None:
        if fullname != _CHECKPOINTS_OF_MMENGINE:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None:
            execute = spec.loader.exec_module
            spec.loader.exec_module = lambda module: (execute(module), install())
        return spec


def install() -> None:
    """Let mmengine read local files and URLs through :func:`load`, in every tool and inferencer of this process."""
    from mmengine.runner.checkpoint import CheckpointLoader

    allow_in_torch()
    CheckpointLoader.register_scheme(prefixes='', loader=load_from_local, force=True)
    CheckpointLoader.register_scheme(prefixes=('http://', 'https://'), loader=load_from_http, force=True)


def load_from_local(filename: str, map_location: Any = None) -> Any:
    """The ``CheckpointLoader`` of local files (mmengine prints the last word of this function's name)."""
    return _without_code(load(filename, map_location))


def load_from_http(filename: str, map_location: Any = None) -> Any:
    """The ``CheckpointLoader`` of URLs: one rank of each machine downloads into torch's hub folder, then all read."""
    from mmengine.dist import barrier, get_local_rank

    path = Path(torch.hub.get_dir(), 'checkpoints', Path(urlparse(filename).path).name)
    if get_local_rank() == 0 and not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(filename, str(path), progress=os.isatty(2))
    barrier()
    return _without_code(load(path, map_location))


def _without_code(content: Any) -> Any:
    """Leave out ``meta.config``, which mmengine no longer writes and, to resume, runs as Python."""
    if isinstance(content, dict) and isinstance(content.get('meta'), dict):
        content['meta'].pop('config', None)
    return content


def _first_line(error: Exception) -> str:
    sentence = re.split(r'\.\s|\n', str(error).strip())[0]
    return f'{type(error).__name__}({sentence:.200})'
