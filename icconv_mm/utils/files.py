"""Files that a fault cannot leave half written, small files from anywhere, folders that one process has for itself."""

import fcntl
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from icconv_mm.errors import ArgumentError, InputError, MissingFileError, naming

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


def read_small(path: Path, what: str) -> bytes:
    """The content of a file from anywhere that is small by nature.

    Args:
        path: The file.
        what: What it is, for the errors: ``'pattern file'``.

    Raises:
        MissingFileError: There is no such file.
        InputError: It is larger than :data:`MAX_BYTES`, or cannot be read.
    """
    if not path.is_file():
        raise MissingFileError(f'{path}: no such {what}')
    if (size := path.stat().st_size) > MAX_BYTES:
        raise InputError(f'{path}: {size} bytes is too large for a {what} (at most {MAX_BYTES})')
    with naming(str(path), OSError):
        return path.read_bytes()


@contextmanager
def alone_in(folder: Path, at_work: str) -> Iterator[None]:
    """Holds a folder, which is made if need be, until the block ends.

    Args:
        folder: The folder.
        at_work: Who else may be there, for the error: ``'another demo is running'``.

    Raises:
        ArgumentError: Another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / '.lock', 'w') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # released when the process ends, however it ends
        except BlockingIOError:
            raise ArgumentError(f'work_dir: {at_work} in {folder}; choose another') from None
        yield
