"""Atomic writes of files and folders, checks that files exist, and a lock that gives a folder to one process."""

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from icconv_mm.errors import ArgumentError, InputError, MissingFileError, naming
from icconv_mm_runtime import files

MAX_BYTES = 10_000_000  # the largest published pattern has 26 kB
_IMAGES = 'images.json'  # in a folder of annotations
_OWN_FILES = '.icconv_files.json'  # the list of the files that a command has written to a folder, with their SHA-256
_PACKAGE = Path(__file__).resolve().parent


@contextmanager
def atomic_write(path: Path, is_flushed: bool = True) -> Iterator[BinaryIO]:
    """Opens a file as :func:`icconv_mm_runtime.files.open_atomic`, but raises InputError if it cannot be written."""
    with naming(str(path), OSError), files.open_atomic(path, is_flushed) as file:
        yield file


def write_json(path: Path, content: Any, indent: int | None = None) -> None:
    """Writes a JSON file atomically; with ``indent``, the file ends with a new line."""
    with naming(str(path), OSError):
        files.dump_json(path, content, indent)


@contextmanager
def new_folder(folder: str | Path, name: str = 'out') -> Iterator[Path]:
    """Yields an unfinished folder, which becomes ``folder`` after the block; after an exception nothing is there.

    Args:
        folder: A folder that does not exist, or is empty.
        name: The argument, for the error.

    Raises:
        ArgumentError: It is a file, or is not empty.
        InputError: It cannot be written.
    """
    folder = Path(folder)
    is_there = os.path.lexists(folder)
    if is_there:
        _require_empty(folder, name, 'choose another')
    with naming(str(folder), OSError):
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = (folder if is_there else folder.parent) / files.temporary_name()
        temporary.mkdir()
    try:
        yield temporary
        with naming(str(folder), OSError):
            for path in temporary.iterdir() if is_there else ():  # it may be a link, or another file system
                os.rename(path, folder / path.name)
            if not is_there:
                os.rename(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def owned_folder(folder: str | Path, is_overwritten: bool = False, name: str = 'out_dir') -> Iterator[Path]:
    """Yields an empty folder, whose files replace those of a former call in ``folder`` after the block, as one.

    A list in the folder says which files are of a former call; of these, those that were changed since then stay.

    Args:
        folder: The folder; made if it does not exist.
        is_overwritten: Whether files of others are replaced by those of the same name.
        name: The argument, for the error.

    Raises:
        ArgumentError: The folder has files of others; without a list, any file is one.
        OSError: A file cannot be written.
    """
    folder = Path(folder)
    hashes_before = _own_files(folder)
    if hashes_before is None and os.path.lexists(folder) and not is_overwritten:
        _require_empty(folder, name, 'choose another, or replace files of the same names by --overwrite')
    hashes_before = hashes_before or {}
    with files.write_together(folder, [_OWN_FILES], is_flushed=False) as written:
        yield written
        paths = sorted(path for path in written.rglob('*') if path.is_file())
        hashes = {path.relative_to(written).as_posix(): _hash_of(path) for path in paths}
        others = [sha256 for sha256 in hashes if os.path.lexists(folder / sha256) and sha256 not in hashes_before]
        if others and not is_overwritten:
            what = f'{len(others)} files are not as this command wrote them, the first is {others[0]}'
            raise ArgumentError(name, f'{folder}: {what}: choose another folder, or replace them by --overwrite')
        for key in hashes_before.keys() - hashes.keys():
            _remove(folder, key)
        write_json(written / _OWN_FILES, hashes)


def _require_empty(folder: Path, name: str, remedy: str) -> None:
    if folder.is_dir():
        files.remove_leftovers(folder)
    if not folder.is_dir() or not all(files.is_temporary(path.name) for path in folder.iterdir()):
        raise ArgumentError(name, f'{folder} is not an empty folder: {remedy}')


def _own_files(folder: Path) -> dict[str, str] | None:
    """Returns the files of a folder that its list names with their SHA-256; None if it has no valid list."""
    listed = None
    with suppress(OSError, ValueError):
        listed = json.loads((folder / _OWN_FILES).read_bytes())
    if not isinstance(listed, dict):
        return None
    inside = Path(os.path.realpath(folder))
    return {
        name: hashed
        for name, hashed in listed.items()
        if hashed  # and no link and no '..' leads elsewhere
        and not os.path.isabs(name)
        and os.path.realpath(folder / name) == str(inside / name)
        and _hash_of(inside / name) == hashed
    }


def _hash_of(path: Path) -> str:
    """Returns the SHA-256 of a file; '' if there is none."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ''


def _remove(folder: Path, name: str) -> None:
    """Removes a file, and the folders above it that become empty."""
    (folder / name).unlink(missing_ok=True)
    for above in list((folder / name).parents)[: name.count('/')]:
        with suppress(OSError):  # it has other files
            above.rmdir()


def write_folder_of_images(annotations: Path, images: str | Path, folder: Path) -> None:
    """Writes where the images lie into a folder of annotations that is going to be at ``folder``."""
    places = list(dict.fromkeys([str(images), os.path.realpath(images)]))
    with suppress(ValueError):  # they are on another drive
        places.insert(0, os.path.relpath(images, folder.absolute()))
    write_json(annotations / _IMAGES, places)


def folder_of_images(annotations: str | Path) -> str:
    """Returns the absolute path of the folder of the images of a folder of annotations.

    That is where they lie from there, so that both can be moved together, or else where they lay; the name of a link
    comes before that of its folder.

    Raises:
        InputError: The annotations do not say it.
    """
    file = Path(annotations, _IMAGES)
    with naming(str(file), OSError, ValueError, TypeError):
        locations = [os.path.abspath(os.path.join(annotations, location)) for location in json.loads(file.read_bytes())]
        return max(locations, key=os.path.isdir)


def is_exported(file: str | Path) -> bool:
    """Returns whether a file has the suffix of an exported network that :mod:`icconv_mm_runtime` opens."""
    return Path(file).suffix.lower() in ('.onnx', '.ort', '.xml')


def copy_annotations(source: str | Path, target: Path) -> None:
    """Copies a folder of annotations; segmentation maps are linked, because there are many and they are not edited."""

    def link(path: str, copy: str) -> None:
        try:
            if not path.endswith('.png'):
                raise OSError
            os.link(path, copy)
        except OSError:
            shutil.copy2(path, copy)

    shutil.copytree(source, target, copy_function=link)


def require_file(path: str | Path, name: str, kind: type[MissingFileError] = MissingFileError) -> None:
    """Raises an error of ``kind`` unless the file exists.

    Args:
        path: The path; one with a scheme (``s3://``) is in a remote store and is not checked.
        name: Name of the path in the error: a config key (``'load_from'``), or ``'pattern file'``.
        kind: Class of the error.
    """
    _require(path, name, kind, 'file', Path(path).is_file())


def require_folder(path: str | Path, name: str, kind: type[MissingFileError] = MissingFileError) -> None:
    """Raises an error of ``kind`` unless the folder exists, like :func:`require_file`."""
    _require(path, name, kind, 'folder', Path(path).is_dir())


def require_path(path: str | Path, name: str, kind: type[MissingFileError] = MissingFileError) -> None:
    """Raises an error of ``kind`` unless the file or folder exists, like :func:`require_file`."""
    _require(path, name, kind, 'file or folder', Path(path).exists())


def require_writable(path: Path, name: str) -> None:
    """Raises ArgumentError for ``name`` unless ``path`` can be written; makes the folders above it."""
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
    """Reads a small file from an untrusted source; ``what`` is its name in the errors: ``'pattern file'``.

    Raises:
        MissingFileError: The file does not exist.
        InputError: The file is larger than :data:`MAX_BYTES`, or cannot be read.
    """
    require_file(path, what)
    if (size := path.stat().st_size) > MAX_BYTES:
        raise InputError(f'{path}: {size} bytes is too large for a {what} (at most {MAX_BYTES})')
    with naming(str(path), OSError):
        return path.read_bytes()


@contextmanager
def alone_in(folder: Path, at_work: str, name: str = '.lock') -> Iterator[None]:
    """Locks a folder until the block ends, if the system has locks; makes the folder if it does not exist.

    Args:
        folder: The folder.
        at_work: The other process in the error: ``'another demo is running'``.
        name: Name of the lock file, which is not deleted.

    Raises:
        ArgumentError: Another process holds the lock.
        InputError: The lock file is a link, a folder or a pipe.
    """
    import filelock

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    if os.path.lexists(path) and (path.is_symlink() or not path.is_file()):
        raise InputError(f'{path} is no plain file, and cannot be locked: remove it')
    lock = filelock.FileLock(path, thread_local=False)  # released when the process ends, however it ends
    with suppress(OSError, NotImplementedError):  # a file system without locks
        try:
            lock.acquire(blocking=False)
        except filelock.Timeout:
            raise ArgumentError('work_dir', f'{at_work} in {folder}; choose another') from None
    try:
        yield
    finally:
        lock.release()


def configs_folder() -> Path:
    """Returns the folder of the configs: beside the package in a checkout, inside it in an installation."""
    beside = _PACKAGE.parent / 'configs'
    return beside if (beside / '_base_').is_dir() else (_PACKAGE / '.mim' / 'configs').resolve()


def base_config(name: str) -> str:
    """Returns the path of a file of ``configs/_base_``, wherever the package lies; written configs call it."""
    return str(configs_folder() / '_base_' / name)
