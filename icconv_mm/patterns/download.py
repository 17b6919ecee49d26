"""Downloads of the published pattern files from the authors' repository to the cache folder.

The repository has no licence, so its files cannot be part of this package.
"""

import hashlib
import logging
import os
from collections.abc import Callable, Iterable
from pathlib import Path

from icconv_mm.arguments import require_known
from icconv_mm.errors import InputError, MissingFileError, UserError
from icconv_mm.fetch import FetchError, fetch
from icconv_mm.files import MAX_BYTES, atomic_write
from icconv_mm.versions import command_of

PUBLISHED_AT = 'https://raw.githubusercontent.com/yifan123/IC-Conv'
_LIMIT = 120  # seconds for one file: the largest has 26 kB
# The last commit of the repository, and files that only older commits have: name -> (commit, path).
_LAST_COMMIT = '0a92284559f6ddfc9d0e6ad94bcfed3e982d875f'
_RESNEXT = ('acd22f8bb4e5b76a56dabc7e72b888b5b2be67d3', 'pattern_zoo/ic_resnext_32x4d_k9.json')
_OLDER = {'detection/ic_resnext101_32x4d_k9': _RESNEXT}
# SHA-256 by name, which except for those is the path in the authors' folder; the two R101 k9 patterns are one file.
PUBLISHED = {
    'detection/ic_resnet50_k9': 'b8167268cea4475ee27a73774a89b25fbe235dd0a841bc8a5bee2b1fcadb7a0d',
    'detection/ic_resnet101_k9': 'bbae9729e719cb7441609fb1e300969eab90944bb2846b9b2896147c21efec1c',
    'detection/ic_resnext101_32x4d_k9': '113f24ee8f11a7ff07a51da7f7535210eebb3862ffd4ad5e09f93ad1c6e9b2d0',
    'segmentation/ic_resnet50_k9': 'd6b6af89cd43b2f38e48d6c95dcbe3ba3b06401305fd9eb9d99c5ef88a680c4f',
    'segmentation/ic_resnet101_k9': 'bbae9729e719cb7441609fb1e300969eab90944bb2846b9b2896147c21efec1c',
    'human_pose/ic_resnet50_k13': '00b2c53bbdc0de6fadcf15f62f25d679eb498644267e3cfea57aee9c8d3528c0',
    'human_pose/ic_resnet101_k13': 'd9651588b1932c8ee042cf3602b5a27d59f7d03afcf65d6d66e5e9052d7f1647',
}
_log = logging.getLogger(__name__)


class DownloadError(InputError):
    """Published patterns could not be downloaded.

    Attributes:
        failed: Names of the missing patterns, each with the reason.
        fetched: Names of the patterns in the cache, each with True if this call downloaded it.
    """

    def __init__(self, failed: dict[str, str], fetched: dict[str, bool]):
        reasons = ''.join(f'\n  {name}: {reason}' for name, reason in failed.items())
        super().__init__(f'{len(failed)} of {len(failed) + len(fetched)} published patterns are missing:{reasons}')
        self.failed, self.fetched = failed, fetched


def cache_folder() -> Path:
    """Returns the cache folder: ``$ICCONV_MM_CACHE``, ``$XDG_CACHE_HOME/icconv_mm`` or ~/.cache/icconv_mm."""
    if folder := os.environ.get('ICCONV_MM_CACHE'):
        return Path(folder).expanduser()
    return Path(os.environ.get('XDG_CACHE_HOME') or '~/.cache').expanduser() / 'icconv_mm'


def published_file(name: str) -> Path:
    """Returns a published pattern's file in the cache; downloads it if needed, unless ``ICCONV_MM_OFFLINE`` is set.

    A modified file counts as missing.

    Raises:
        MissingFileError: If it is missing and is not or cannot be downloaded.
    """
    path = _target(name)
    if _is_published(path, name):
        return path
    reason = 'another file than published' if path.exists() else 'not there'
    absent = f'the published pattern {name!r} is {reason}: {path}: run {command_of("download_patterns")}'
    if os.environ.get('ICCONV_MM_OFFLINE', '0') not in ('', '0'):
        raise MissingFileError(absent)
    _log.warning('fetching the published pattern %r from %s into %s', name, PUBLISHED_AT, path.parent)
    try:
        _fetch(name, PUBLISHED_AT)
    except (UserError, OSError) as error:
        raise MissingFileError(f'{absent} ({error})') from None
    return path


def download_patterns(
    names: Iterable[str] | None = None,
    source: str | Path | None = None,
    progress: Callable[[list[str]], Iterable[str]] = iter,
) -> dict[str, bool]:
    """Downloads published patterns to the cache folder; each is checked by its SHA-256 and written atomically.

    Args:
        names: Names of ``PUBLISHED``; all by default.
        source: A URL with files at ``COMMIT/PATH``, ``PUBLISHED_AT`` by default; or a folder with files at their paths,
            such as a clone of the repository.
        progress: Wraps the list of names while they are worked on.

    Returns:
        For every name whether it was downloaded; intact files are kept.

    Raises:
        InputError: If a name is unknown.
        DownloadError: If a file cannot be read or written or is not the published one; the others were downloaded.
    """
    names = require_known(PUBLISHED if names is None else names, PUBLISHED, 'no published pattern')
    fetched, failed = {}, {}
    for name in progress(names):
        try:
            fetched[name] = _fetch(name, str(source or PUBLISHED_AT))
        except (UserError, OSError) as error:
            failed[name] = str(error)
    if failed:
        raise DownloadError(failed, fetched)
    return fetched


def location(name: str) -> tuple[str, str]:
    """Returns the commit of the authors' repository that has a published file, and its path there."""
    return _OLDER.get(name, (_LAST_COMMIT, f'pattern_zoo/{name}.json'))


def _target(name: str) -> Path:
    return cache_folder() / 'patterns' / f'{name}.json'


def _is_published(path: Path, name: str) -> bool:
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == PUBLISHED[name]


def _fetch(name: str, source: str) -> bool:
    target = _target(name)
    if _is_published(target, name):
        return False
    if '://' not in source:
        origin = _in_folder(name, Path(source).expanduser())
        _check_hash(origin, str(origin), name)
        with atomic_write(target) as file:
            file.write(origin.read_bytes())
        return True
    address = '/'.join((source.rstrip('/'), *location(name)))
    try:
        fetch(address, target, most=MAX_BYTES, limit=_LIMIT, check=lambda path: _check_hash(path, address, name))
    except FetchError as error:
        raise InputError(
            f'{address}: {error.reason}. Without a connection, clone the repository elsewhere and run '
            f'{command_of("download_patterns", "--from", "FOLDER")}'
        ) from None
    return True


def _check_hash(path: Path, origin: str, name: str) -> None:
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    if sha256 != PUBLISHED[name]:
        raise InputError(f'{origin} is not the published file: SHA-256 {sha256}, expected {PUBLISHED[name]}')


def _in_folder(name: str, folder: Path) -> Path:
    commit, path = location(name)
    for relative in (path, path.removeprefix('pattern_zoo/'), f'{name}.json'):
        if (folder / relative).is_file():
            return folder / relative
    by_hand = f'; where {folder} is a clone: git show {commit}:{path} > {name}.json' if name in _OLDER else ''
    raise MissingFileError(f'{folder}: there is no {path} and no {name}.json{by_hand}')
