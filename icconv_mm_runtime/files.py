"""Writes files: complete beside their paths, then renamed; several as one.

Standard library alone. Files get the permissions that the user's umask leaves, and temporary names have a fixed length,
so that what has a valid name can be written.
"""

import errno
import json
import os
import secrets
import shutil
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

try:
    from fcntl import LOCK_EX, LOCK_NB, LOCK_UN, flock
except ImportError:  # as on Windows: leftovers stay
    flock = None

_START, _END = '.icconv_', '.part'
_LEAST_AGE = 60  # seconds; a younger leftover may be of a process that has not locked it yet


def temporary_name() -> str:
    """Returns a name for an unfinished file or folder: hidden, not to be guessed, of 29 characters."""
    return f'{_START}{secrets.token_hex(8)}{_END}'


@contextmanager
def open_atomic(path: str | Path, is_flushed: bool = True) -> Iterator[BinaryIO]:
    """Opens a file for writing and makes its folders; the file appears complete or not at all.

    Args:
        path: The file.
        is_flushed: Whether to wait until the file is on the disk, which takes minutes for thousands of small files.

    Raises:
        OSError: The file cannot be written; ``filename`` is its path.
    """
    path = Path(path)
    temporary = path.with_name(temporary_name())
    try:
        with _named(path, temporary):
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(temporary, 'xb') as file, locked(temporary):  # follows no link of this name
                yield file
                if is_flushed:
                    file.flush()
                    os.fsync(file.fileno())
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: str | Path, content: bytes, is_flushed: bool = True) -> None:
    """Writes a file atomically; raises the errors of :func:`open_atomic`."""
    with open_atomic(path, is_flushed) as file:
        file.write(content)


def dump_json(path: str | Path, content: Any, indent: int | None = None) -> None:
    """Writes a JSON file atomically; with ``indent``, the file ends with a new line."""
    write_bytes(path, (json.dumps(content, indent=indent) + ('' if indent is None else '\n')).encode())


@contextmanager
def write_together(folder: str | Path, entries: Collection[str], is_flushed: bool = True) -> Iterator[Path]:
    """Yields an empty folder, whose files then appear in ``folder`` as one.

    Former and new files are never read together, even if the process is killed: the ``entries``, without which nobody
    reads the others, are removed first and appear last. After an exception in the block all former files are as before.

    Args:
        folder: The folder; made if it does not exist. Its other files stay. Leftovers of killed processes are removed.
        entries: Names of files, such as ``images.json`` of a pair.
        is_flushed: As for :func:`open_atomic`.

    Raises:
        OSError: A file cannot be written; ``filename`` is its path.
    """
    folder = Path(folder)
    temporary = folder / temporary_name()
    try:
        with _named(folder, temporary):
            folder.mkdir(parents=True, exist_ok=True)
            remove_leftovers(folder)
            temporary.mkdir()
            with locked(temporary):
                yield temporary
                _move(temporary, folder, entries, is_flushed)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _move(source: Path, target: Path, entries: Collection[str], is_flushed: bool) -> None:
    """Moves the files of a folder to another one, the entries last."""
    names = sorted(str(path.relative_to(source)) for path in source.rglob('*') if path.is_file())
    for name in names:
        if is_flushed:
            with open(source / name, 'rb') as file:
                os.fsync(file.fileno())
        (target / name).parent.mkdir(parents=True, exist_ok=True)
    for name in names:  # nothing is removed before all can be replaced
        if (target / name).is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target / name))
    last = [name for name in names if name in entries]
    if len(names) > 1:
        for name in last:
            (target / name).unlink(missing_ok=True)
    for name in [*(name for name in names if name not in last), *last]:
        os.replace(source / name, target / name)


def is_temporary(name: str) -> bool:
    """Returns whether a file or folder of this name is unfinished."""
    return name.startswith(_START) and name.endswith(_END)


def remove_leftovers(folder: str | Path) -> None:
    """Removes unfinished files and folders whose process has ended; those of a running one are locked."""
    for path in Path(folder).glob(f'{_START}*{_END}'):
        with suppress(OSError), locked(path) as is_locked:
            if is_locked and time.time() - path.lstat().st_mtime > _LEAST_AGE:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


@contextmanager
def locked(path: Path) -> Iterator[bool | None]:
    """Holds the lock of a file or a folder; yields False if another process holds it, None where there are no locks."""
    if flock is None:
        yield None
        return
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    is_locked: bool | None = True
    try:
        try:
            flock(descriptor, LOCK_EX | LOCK_NB)
        except OSError as error:  # the others: of a file system without locks
            is_locked = False if isinstance(error, BlockingIOError) else None
        yield is_locked
    finally:
        if is_locked:
            flock(descriptor, LOCK_UN)  # forked processes hold the descriptor, too
        os.close(descriptor)


@contextmanager
def _named(path: Path, temporary: Path) -> Iterator[None]:
    """Names the file in an error of the system, not its temporary one, or if none is named."""
    try:
        yield
    except OSError as error:
        if error.errno and (error.filename is None or str(error.filename).startswith(str(temporary))):
            error.filename = str(path) + str(error.filename or '').removeprefix(str(temporary))
        raise
