"""Files that a fault cannot leave half written, small files from anywhere, folders that one process has for itself."""

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO

from icconv_mm.errors import (
    ArgumentError,
    InputError,
    MissingArgumentFileError,
    MissingFileError,
    MissingLibraryError,
    naming,
)

MAX_BYTES = 10_000_000  # the largest published pattern has 26 kB


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file to be written, and the folders above it: it appears whole or not at all."""
    with naming(str(path), OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f'.{path.name}.', suffix='.part')
        try:
            with os.fdopen(descriptor, 'wb') as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o644)
            Path(temporary).replace(path)
        finally:
            Path(temporary).unlink(missing_ok=True)


def write_json(path: Path, content: Any, indent: int | None = None) -> None:
    """Write a JSON file whole or not at all; one with ``indent`` ends with a new line."""
    text = json.dumps(content, indent=indent) + ('' if indent is None else '\n')
    with whole_file(path) as file:
        file.write(text.encode())


def require_file(path: str | Path, name: str, kind: type[MissingFileError] = MissingFileError) -> None:
    """Raise an error of ``kind`` unless there is such a file.

    Args:
        path: The path; text with a scheme (``s3://``) is of a remote store, where nothing is looked up.
        name: What the path is, for the error: a key of a config (``'load_from'``), or ``'pattern file'``.
        kind: The error to raise.
    """
    if absence := _absence(path, 'file'):
        raise kind(f'{name}: {absence}')


def require_argument_file(path: str | Path, argument: str) -> None:
    """:func:`require_file` for the path that an argument gives: tools name their option."""
    if absence := _absence(path, 'file'):
        raise MissingArgumentFileError(argument, absence)


def require_folder(path: str | Path, name: str, kind: type[MissingFileError] = MissingFileError) -> None:
    """:func:`require_file` for a folder."""
    if absence := _absence(path, 'folder'):
        raise kind(f'{name}: {absence}')


def _absence(path: str | Path, kind: str) -> str | None:
    """What is wrong where there is no such file or folder, with what a path is relative to; None if nothing is."""
    is_there = {'file': Path.is_file, 'folder': Path.is_dir}[kind]
    if (isinstance(path, str) and '://' in path) or is_there(Path(path)):
        return None
    return f'no such {kind}: {path}' + ('' if Path(path).is_absolute() else f' (in {Path.cwd()})')


def read_small(path: Path, what: str) -> bytes:
    """The content of a file from anywhere that is small by nature.

    Args:
        path: The file.
        what: What it is, for the errors: ``'pattern file'``.

    Raises:
        MissingFileError: There is no such file.
        InputError: It is larger than :data:`MAX_BYTES`, or cannot be read.
    """
    require_file(path, what)
    if (size := path.stat().st_size) > MAX_BYTES:
        raise InputError(f'{path}: {size} bytes is too large for a {what} (at most {MAX_BYTES})')
    with naming(str(path), OSError):
        return path.read_bytes()


def locks() -> ModuleType:
    """Python's ``fcntl``, which only what locks a folder needs: backbones and the like also run where there is none.

    Raises:
        MissingLibraryError: There is none on this operating system.
    """
    try:
        import fcntl
    except ImportError:
        raise MissingLibraryError(
            "to hold a folder against other processes takes Python's fcntl, which Linux and macOS have"
        ) from None
    return fcntl


@contextmanager
def alone_in(folder: Path, at_work: str) -> Iterator[None]:
    """Holds a folder, which is made if need be, until the block ends.

    Args:
        folder: The folder.
        at_work: Who else may be there, for the error: ``'another demo is running'``.

    Raises:
        ArgumentError: Another process holds it.
        MissingLibraryError: As of :func:`locks`.
    """
    fcntl = locks()
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / '.lock', 'w') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # released when the process ends, however it ends
        except BlockingIOError:
            raise ArgumentError('work_dir', f'{at_work} in {folder}; choose another') from None
        yield
