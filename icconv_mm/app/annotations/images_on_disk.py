"""Images of a folder: their locations, their sizes, and the image that a path in an annotation file refers to."""

import itertools
import os
import re
import stat
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from icconv_mm.app.annotations.roots import files_of_names
from icconv_mm.datasets import limits
from icconv_mm.datasets.image_files import AnyPath
from icconv_mm.datasets.reading import DatasetError, Problems, fault_of, head, read_text
from icconv_mm.errors import InputError
from icconv_mm.files import require_file
from icconv_mm_runtime.images import IMAGE_SUFFIXES

ANNOTATION_SUFFIXES = ('.json', '.xml', '.yaml', '.yml', '.txt', '.csv')
_SPLIT = re.compile(r'(?<![a-z])(train|val|dev|test)(?:ing|id|idation)?(?:set|images)?(?![a-z])')
_RUNS = 'work_dirs'  # folder of training runs, if one was started in the folder of the images
_OF_RUN = re.compile('annotations_[0-9a-f]{12}')
LOCATIONS = 'locations.json'  # sources of the annotations of a training, in their folder
_DRAWN = 'vis'  # folder of images with predictions drawn on them, beside the predictions
_FOLDERS_OF_LABELS = ('annotations', 'annotation', 'labels')


def split_of(*names: str | Path) -> str:
    """Returns the split in the last name that contains one: ``'train'`` for ``instances_train2017.json``; else ''."""
    for name in reversed(names):
        for part in reversed(Path(name).parts):
            words = _SPLIT.findall(re.sub(r'[\d_\-.]+', ' ', part.lower()))
            if words:
                return 'val' if words[-1] == 'dev' else words[-1]
    return ''


def without_split(stem: str) -> str:
    """Returns the name of a file without the word of its split: equal for the files of one dataset."""
    return _SPLIT.sub('*', stem.lower())


def followed(path: Path) -> Path:
    """Resolves symbolic links that a checkout without link support stored as files with the target's path."""
    return followed_folder(path.parent) / path.name if path.suffix else followed_folder(path)


@lru_cache(1 << 12)
def followed_folder(path: Path) -> Path:
    """Returns :func:`followed` of a folder; remembered until its ``cache_clear`` is called, as for each reading."""
    location, parts = Path(path.anchor), list(path.parts[1:] if path.anchor else path.parts)
    for number, part in enumerate(parts, 1):
        location = location / part
        if location.suffix:
            continue
        try:
            state = location.stat()
            if stat.S_ISREG(state.st_mode) and state.st_size < 256:
                target = location.parent / head(location).strip()
                location = target if target.is_dir() else location
        except (OSError, ValueError):  # an invalid name, so the rest of the path is not resolved
            return location.joinpath(*parts[number:])
    return location


def is_endless(text: str) -> bool:
    """Returns whether a path in an annotation file exceeds the limits and so refers to no file."""
    if len(text) > limits.PATH_LETTERS:
        return True
    return text.count('/') + text.count('\\') >= limits.PATH_PARTS and len(as_path(text).parts) > limits.PATH_PARTS


def located(text: str, roots: Iterable[Path]) -> Path | None:
    """Finds the file of a path in an annotation file: as it is, below a root, or by as many last parts as match."""
    if is_endless(text):
        return None
    given = as_path(text)
    if given == Path() and '.' not in text:  # a blank path is not the folder itself
        return None
    if given.is_absolute() and _is_there(given):
        return given
    parts = [part for part in given.parts if part not in ('/', '.')]
    for root in roots:
        if not given.is_absolute() and _is_there(root / given):
            return root / given
        for start in range(len(parts)):
            if parts[start] != '..' and _is_there(candidate := root.joinpath(*parts[start:])):
                return candidate
    return None


def _is_there(path: Path) -> bool:
    try:
        return followed(path).exists()
    except (OSError, ValueError):  # the name is too long, or the folder is not readable
        return False


def is_text(name: str) -> bool:
    """Returns whether a file name is valid UTF-8, so that it can be written and printed."""
    return name.isascii() or not any('\ud800' <= letter <= '\udfff' for letter in name)


def _identity(folder: Path) -> tuple[int, int]:
    state = folder.stat()
    return state.st_dev, state.st_ino


def _is_of_run(folder: os.DirEntry) -> bool:
    """Returns whether a folder has the annotations that a training has written, of images beside it."""
    return bool(_OF_RUN.fullmatch(folder.name)) and os.path.isfile(os.path.join(folder.path, LOCATIONS))


def _is(kind: Callable[[], bool]) -> bool:
    try:
        return kind()
    except OSError:  # circular links
        return False


def _has_predictions(names: Sequence[str]) -> bool:
    """Returns whether a folder has results of ``icconv predict``."""
    return any(name.startswith('images.') and name.replace('images', 'predictions', 1) in names for name in names)


class Files:
    """The files below a folder, walked once.

    Args:
        location: The folder; or a single annotation file, whose surroundings are searched for images only.

    Attributes:
        root: The folder that was walked.
        only: The single annotation file, or None.
        contents: Contents of JSON files that were decoded to recognise them, until they are read.
        warnings: Files and folders that cannot be read, and why.
        voc_from: The number of the first pixel in boxes of Pascal VOC, where the user says it.
    """

    def __init__(self, location: Path) -> None:
        if not location.is_dir():
            require_file(location, 'data')
        self.only = None if location.is_dir() else location
        beside = location.parent.parent if location.parent.name.lower() in _FOLDERS_OF_LABELS else location.parent
        self.root = location if self.only is None else beside
        self.by_folder: dict[Path, list[str]] = {}
        self.warnings = Problems()
        self.kinds: dict[Path, str] = {}  # of JSON and XML files that were inspected
        self.contents: dict[Path, Any] = {}
        self.voc_from: int | None = None
        self._walk()
        self._images: dict[str, list[Path]] | None = None
        self._ends: dict[str, ByEnd] = {}
        self._fitting: dict[tuple, list[Path]] = {}
        self._by_stem: dict[Path, dict[str, Path]] = {}
        self._ending: dict[tuple[str, ...], list[Path]] = {}
        self._sets: dict[Path, frozenset[str]] = {}

    def _walk(self) -> None:
        """Collects the regular files of the folders, then of linked folders; no folder is visited twice."""
        visited: set[tuple[int, int]] = set()
        for link in self._walk_below(self.root, visited):
            if _identity(link) in {_identity(folder) for folder in link.parents}:
                continue
            links = self._walk_below(link, visited)
            while links:
                if _identity(link := links.pop()) not in visited:
                    links += self._walk_below(link, visited)
        self.by_folder = dict(sorted(self.by_folder.items()))

    def _walk_below(self, top: Path, visited: set[tuple[int, int]]) -> list[Path]:
        """Collects the files below a folder, and returns the links to other folders without following them."""
        links, waiting = [], [top]
        while waiting:
            folder = waiting.pop()
            if len(self.by_folder) == limits.FOLDERS:
                raise DatasetError(f'{self.root}: has more than {limits.FOLDERS} folders, with those behind links')
            visited.add(_identity(folder))
            names = self.by_folder[folder] = []
            try:
                entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
            except OSError as error:
                self.warnings.warn(folder, f'cannot be read ({error.strerror})', is_left_out=True)
                continue
            left_out = {_RUNS, *([_DRAWN] if _has_predictions([entry.name for entry in entries]) else [])}
            for entry in entries:
                if entry.name.startswith('.'):
                    continue
                if not is_text(entry.name):
                    shown = os.fsencode(entry.path).decode(errors='backslashreplace')
                    self.warnings.warn(shown, 'its name is not UTF-8', is_left_out=True)
                elif _is(entry.is_dir):
                    if not entry.name.startswith('__MACOSX') and entry.name not in left_out and not _is_of_run(entry):
                        (links if entry.is_symlink() else waiting).append(Path(entry.path))
                    if entry.name.lower().endswith(IMAGE_SUFFIXES + ANNOTATION_SUFFIXES):
                        self.warnings.warn(entry.path, 'is a folder, called like a file: not read')
                elif _is(entry.is_file):
                    names.append(entry.name)
                elif entry.name.lower().endswith(IMAGE_SUFFIXES + ANNOTATION_SUFFIXES):
                    what = 'leads to no file (of DVC or git-annex, fetch it)' if entry.is_symlink() else 'is no file'
                    self.warnings.warn(entry.path, what, is_left_out=True)
        return links

    def has_images(self, folder: Path) -> bool:
        """Returns whether a folder itself contains images."""
        return any(name.lower().endswith(IMAGE_SUFFIXES) for name in self.by_folder.get(folder, ()))

    def ending(self, *suffixes: str) -> list[Path]:
        """Returns the files with one of the (lower-case) suffixes, sorted by path."""
        if suffixes not in self._ending:
            self._ending[suffixes] = list(self.each_ending(*suffixes))
        return self._ending[suffixes]

    def each_ending(self, *suffixes: str) -> Iterator[Path]:
        """Yields what :meth:`ending` returns, one by one."""
        for folder, names in self.by_folder.items():
            for name in names:
                if name.lower().endswith(suffixes):
                    yield folder / name

    def text(self, path: Path) -> str:
        """Returns the text of a file; '' with a warning if it cannot be read."""
        try:
            return read_text(path)
        except DatasetError as error:
            self.warnings.warn_once(path, fault_of(error), is_left_out=True)
            return ''

    def labels(self, *suffixes: str) -> list[Path]:
        """Returns the annotation files with one of the suffixes, like :meth:`ending`: the one given, or all."""
        if self.only is None:
            return self.ending(*suffixes)
        return [self.only] if self.only.name.lower().endswith(suffixes) else []

    def split_of_folders(self, path: Path) -> str:
        """Returns the split named by the folders of a file below the root."""
        roots = [root for root in (self.root, Path(os.path.realpath(self.root))) if path.is_relative_to(root)]
        return split_of(path.relative_to(roots[0]).parent) if roots else ''

    def beside(self, name: str, *near: Path) -> Path | None:
        """Returns the image with a name without suffix in one of the nearby folders."""
        for folder in near:
            if folder not in self._by_stem:
                names = self.by_folder.get(folder)
                names = filter(is_text, os.listdir(folder)) if names is None and folder.is_dir() else names or ()
                there = [folder / name for name in names if name.lower().endswith(IMAGE_SUFFIXES)]
                there.sort(key=lambda path: IMAGE_SUFFIXES.index(path.suffix.lower()), reverse=True)
                self._by_stem[folder] = {path.stem: path for path in there}
            if name in self._by_stem[folder]:
                return self._by_stem[folder][name]
        return None

    def images(self, names: Iterable[str], *near: Path, split: str = '') -> dict[str, Path]:
        """Returns the image of each name; names without an image are skipped.

        Most names lie below one of the nearby folders, the others anywhere below the root. If several of these lead to
        one image, the name that shares most of its path wins: if only ``cam1/0.jpg`` was copied, ``cam2/0.jpg`` is
        missing.

        Raises:
            InputError: Several names match an image equally, or several images match a name.
        """
        names = dict.fromkeys(name for name in names if len(name) <= limits.PATH_LETTERS)
        paths = files_of_names(names, near, self._names_in)
        plain = {name.replace('\\', '/'): name for name in names if '\\' in name and name not in paths}
        of_windows = files_of_names(plain, near, self._names_in)
        taken = set(paths.values())
        paths |= {plain[name]: path for name, path in of_windows.items() if path not in taken}
        taken.update(paths.values())
        leading: dict[Path, list[str]] = {}
        for name in names:
            location = None if name in paths else self._elsewhere(name, near, split)
            if location is not None and location not in taken:
                leading.setdefault(location, []).append(name)
        for location, fitting in leading.items():
            if len(fitting) > 1 and len(fitting := nearest(fitting, location)) > 1:
                raise InputError(f'{location}: {len(fitting)} annotated names lead to it: {fitting[0]}, {fitting[1]}')
            paths[fitting[0]] = location
        return paths

    def image(self, name: str, *near: Path, split: str = '') -> Path | None:
        """Returns the image of a name, as :meth:`images` finds it; None without one."""
        return self.images([name], *near, split=split).get(name)

    def _names_in(self, folder: Path) -> Collection[str]:
        """Returns the names of the files in a folder, which may lie beside the root."""
        if folder not in self._sets:
            names = self.by_folder.get(folder)
            if names is None and not folder.is_relative_to(self.root):
                names = os.listdir(folder) if _is(folder.is_dir) else ()
            self._sets[folder] = frozenset(names or ())
        return self._sets[folder]

    def _elsewhere(self, name: str, near: Sequence[Path], split: str) -> Path | None:
        """Returns the image of a name that is in no nearby folder: of several below the root, one of the split.

        Raises:
            InputError: Several images match.
        """
        if is_endless(name):
            return None
        if self._images is None:
            self._images = {}
            beside = self.root.parent / 'images'  # shared by several folders of annotations
            has_none = beside.is_dir() and not self.ending(*IMAGE_SUFFIXES[:2])
            maps = {path.with_suffix('') for path, kind in self.kinds.items() if kind == 'COCO panoptic'}
            for path in self.ending(*IMAGE_SUFFIXES) + (Files(beside).ending(*IMAGE_SUFFIXES) if has_none else []):
                if not maps or path.parent not in maps:  # the maps have the names of the images
                    self._images.setdefault(path.name, []).append(path)
        fitting = self._images.get(name.rpartition('/')[2], [])
        if len(fitting) == 1 and not name.startswith('/'):  # most names: looking into the folders is slow
            return fitting[0]
        if (candidate := located(name, near)) is not None and candidate.is_file():
            return candidate
        fitting = self._images.get(as_path(name).name, [])
        fitting = self._nearest(as_path(name), fitting, split) if len(fitting) > 1 else fitting
        if len(fitting) > 1:
            raise InputError(f'{name}: {len(fitting)} images are called so: {fitting[0]}, {fitting[1]}')
        return fitting[0] if fitting else None

    def _nearest(self, given: Path, images: list[Path], split: str) -> list[Path]:
        """Returns the images of one name that match it best, each file once."""
        if given.name not in self._ends:
            self._ends[given.name] = ByEnd(images)
        end = self._ends[given.name].end_of(given)
        if (end, split) not in self._fitting:
            fitting = self._ends[given.name].paths[end]
            if split and len(fitting) > 1:
                fitting = [path for path in fitting if self.split_of_folders(path) == split] or fitting
            paths_by_real = {os.path.realpath(path): path for path in reversed(fitting)}
            fitting = list(reversed(paths_by_real.values()))
            above = [one for one in fitting if all(path.is_relative_to(one.parent) for path in fitting)]
            self._fitting[end, split] = above if len(above) == 1 else fitting  # a.png beside sub/a.png
        return self._fitting[end, split]


class ByEnd:
    """Index of paths by each of their ends: finds those that share the most last parts with another path.

    Args:
        paths: Files or folders.
        of_folders: Whether the ends are taken from the files' folders.

    Attributes:
        paths: The paths with each end; all of them for the empty end.
    """

    def __init__(self, paths: Iterable[Path], of_folders: bool = False) -> None:
        self.paths: dict[tuple[str, ...], list[Path]] = {}
        for path in paths:
            parts = (path.parent if of_folders else path).parts[-limits.PATH_PARTS :]
            for start in range(len(parts) + 1):
                self.paths.setdefault(parts[start:], []).append(path)

    def end_of(self, other: Path) -> tuple[str, ...]:
        """Returns the longest end of a path that any indexed path shares."""
        parts, count = other.parts, 0
        while count < len(parts) and parts[-count - 1 :] in self.paths:
            count += 1
        return parts[len(parts) - count :]


def as_path(text: str | Path) -> Path:
    """Returns a path that may be written with Windows' separators."""
    return Path(str(text).strip().replace('\\', '/'))


def nearest(paths: Sequence[AnyPath], other: str | Path) -> list[AnyPath]:
    """Returns the paths that share the most last parts with another one."""
    counts = [_common_end(as_path(path).parts, as_path(other).parts) for path in paths]
    most = max(counts, default=0)
    return [path for path, count in zip(paths, counts) if count == most]


def _common_end(one: Sequence[str], other: Sequence[str]) -> int:
    pairs = zip(reversed(one), reversed(other))
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
