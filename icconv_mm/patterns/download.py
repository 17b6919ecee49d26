"""The published pattern files, from where their authors keep them into the cache folder.

The repository of the paper carries no licence, so its files cannot be part of this package.
"""

import hashlib
import http.client
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from pathlib import Path

from icconv_mm.errors import InputError, MissingFileError, naming
from icconv_mm.patterns.files import MAX_BYTES, write_whole
from icconv_mm.patterns.zoo import PUBLISHED, cache_folder

PUBLISHED_AT = 'https://raw.githubusercontent.com/yifan123/IC-Conv/0a92284559f6ddfc9d0e6ad94bcfed3e982d875f/pattern_zoo'
_TIMEOUT = 30  # seconds without an answer


def download_patterns(
    names: Iterable[str] | None = None,
    source: str | Path = PUBLISHED_AT,
    progress: Callable[[list[str]], Iterable[str]] = iter,
) -> dict[str, bool]:
    """Puts published patterns into the cache folder, each checked by its SHA-256 and written whole or not at all.

    Args:
        names: Which of ``PUBLISHED``; all by default.
        source: The address of the folder ``pattern_zoo``, or a clone of the repository (or that folder) on disk.
        progress: Wraps the list of names while they are worked on.

    Returns:
        For every name whether it was fetched; files that are there and intact are left alone.

    Raises:
        InputError: If a name is unknown, a file is not the published one (nothing is written then), or it cannot be
            fetched, read or written; the message says which and what to try.
    """
    names = list(PUBLISHED if names is None else names)
    if unknown := [name for name in names if name not in PUBLISHED]:
        raise InputError(f'no published pattern {unknown[0]!r}; there are {", ".join(PUBLISHED)}')
    return {name: _fetch(name, str(source)) for name in progress(names)}


def _fetch(name: str, source: str) -> bool:
    target = cache_folder() / 'patterns' / f'{name}.json'
    if target.is_file() and _digest(target.read_bytes()) == PUBLISHED[name]:
        return False
    origin, content = _read(name, source)
    if (found := _digest(content)) != PUBLISHED[name]:
        raise InputError(f'{origin} is not the published file: SHA-256 {found}, expected {PUBLISHED[name]}')
    write_whole(target, content)
    return True


def _read(name: str, source: str) -> tuple[str, bytes]:
    """Where the file is, and what it holds."""
    if '://' not in source:
        folder = Path(source).expanduser()
        path = next(
            (p for p in (folder / 'pattern_zoo' / f'{name}.json', folder / f'{name}.json') if p.is_file()), None
        )
        if path is None:
            raise MissingFileError(f'{folder}: neither pattern_zoo/{name}.json nor {name}.json is there')
        with naming(str(path), OSError):
            return str(path), path.read_bytes()
    address = f'{source.rstrip("/")}/{name}.json'
    try:
        with urllib.request.urlopen(address, timeout=_TIMEOUT) as answer:
            return address, answer.read(MAX_BYTES)
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        reason = getattr(error, 'reason', error)
        raise InputError(
            f'{address}: {reason}. Without a connection, clone the repository elsewhere and pass its folder as --source'
        ) from None


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
