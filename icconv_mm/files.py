"""Files that a fault cannot leave half written, files that are missing, a folder held by one process."""

import errno
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from icconv_mm import versions
from icconv_mm.errors import ArgumentError, InputError, MissingFileError, naming

MAX_BYTES = 10_000_000  # the largest published pattern has 26 kB
RUN_LOCK = '.run.lock'  # in the folder of a run, held by whoever writes there
_PACKAGE = Path(__file__).resolve().parent


@contextmanager
def atomic_write(path: Path, is_flushed: bool = True) -> Iterator[BinaryIO]:
    """A file to be written, and the folders above it: it appears whole or not at all.

    Args:
        path: The file.
        is_flushed: Whether to wait until it is on the disk, which of thousands of small files takes minutes.
    """
    with naming(str(path), OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f'.{path.name}.', suffix='.part')
        try:
            with os.fdopen(descriptor, 'wb') as file:
                yield file
                if is_flushed:
                    file.flush()
                    os.fsync(file.fileno())
            os.chmod(temporary, 0o644)
            Path(temporary).replace(path)
        finally:
            Path(temporary).unlink(missing_ok=True)


def write_json(path: Path, content: Any, indent: int | None = None) -> None:
    """Write a JSON file whole or not at all; one with ``indent`` ends with a new line."""
    text = json.dumps(content, indent=indent) + ('' if indent is None else '\n')
    with atomic_write(path) as file:
        file.write(text.encode())


def require_file(path: str | Path, name: str, kind: type[MissingFileError] = MissingFileError) -> None:
    """Raise an error of ``kind`` unless there is such a file.

    Args:
        path: The path; text with a scheme (``s3://``) is of a remote store, where nothing is looked up.
        name: What the path is, for the error: a key of a config (``'load_from'``), or ``'pattern file'``.
        kind: The error to raise.
    """
    _require(path, name, kind, 'file', Path(path).is_file())


def require_folder(path: str | Path, name: str, kind: type[MissingFileError] = MissingFileError) -> None:
    """:func:`require_file` for a folder."""
    _require(path, name, kind, 'folder', Path(path).is_dir())


def require_writable(path: Path, name: str) -> None:
    """Raise ArgumentError for ``name`` unless a file can be written at ``path``; the folders above it are made."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise ArgumentError(name, f'{path}: {error.strerror}') from error


def _require(path: str | Path, name: str, kind: type[MissingFileError], what: str, is_there: bool) -> None:
    if not is_there and not (isinstance(path, str) and '://' in path):
        relative_to = '' if Path(path).is_absolute() else f' (in {Path.cwd()})'
        raise kind(f'{name}: no such {what}: {path}{relative_to}')


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


@contextmanager
def alone_in(folder: Path, at_work: str, name: str = '.lock') -> Iterator[None]:
    """Holds a folder, which is made if need be, until the block ends, where the system has locks.

    Args:
        folder: The folder.
        at_work: Who else may be there, for the error: ``'another demo is running'``.
        name: Name of the file that is locked; it stays.

    Raises:
        ArgumentError: Another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not versions.is_installed('fcntl'):  # as on Windows
        yield
        return
    import fcntl

    # not through a link that somebody has put there, and without a change to what is
    descriptor = os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    with open(descriptor, 'r+') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # released when the process ends, however it ends
        except BlockingIOError:
            raise ArgumentError('work_dir', f'{at_work} in {folder}; choose another') from None
        except OSError:  # a file system without locks
            pass
        try:
            yield
        finally:  # workers that were forked meanwhile hold the file, too
            with suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_UN)


def configs_folder() -> Path:
    """The folder of the recipes: beside the package in a checkout, within it in an installation."""
    beside = _PACKAGE.parent / 'configs'
    return beside if (beside / '_base_').is_dir() else (_PACKAGE / '.mim' / 'configs').resolve()
