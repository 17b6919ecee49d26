"""What a folder of labelled pictures holds, whatever wrote it: pictures, things on them, names, and what is wrong."""

import itertools
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import TypeVar
from zlib import crc32

import cv2
import numpy as np
from PIL import Image

from icconv_mm.data import limits
from icconv_mm.data.reading import DatasetError, fault_of, head, read_text
from icconv_mm.errors import InputError, sentence
from icconv_mm.files import require_file

AnyPath = TypeVar('AnyPath', str, Path)

IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp')
IMAGE_FORMATS = ('JPEG', 'PNG', 'BMP', 'DIB', 'TIFF', 'WEBP', 'GIF', 'PPM')  # that Pillow may find in a file
ANNOTATION_SUFFIXES = ('.json', '.xml', '.yaml', '.yml', '.txt', '.csv')
TASKS = ('boxes', 'masks', 'semantic', 'pose', 'classes')
SPLITS = ('train', 'val', 'test')
_SPLIT = re.compile(r'(?<![a-z])(train|val|dev|test)(?:ing|id|idation)?(?:set|images)?(?![a-z])')
_HELD_OUT_FIRST = ('val', 'test', 'train', '')  # a picture that is learned from must not judge what was learned
_RUNS = 'work_dirs'  # what a training writes, where it was started in the folder of the pictures
_FOLDERS_OF_LABELS = ('annotations', 'annotation', 'labels')
_WIDTH, _HEIGHT, _ORIENTATION = 0x0100, 0x0101, 0x0112  # tags of TIFF and EXIF
_HELD_OUT = 5  # one picture of so many validates, where nobody split the set
_DARK = 1 << 14  # pixels of 16 bits are loaded as their upper 8: of 12 bits in them, 4 are left


@dataclass
class Thing:
    """One object on a picture.

    Attributes:
        name: Its class.
        box: x, y, width, height in pixels; None until it is taken from the outline or the keypoints.
        outline: COCO's polygons or run lengths; None without a mask.
        keypoints: x, y and visibility (0 unlabelled, 1 hidden, 2 visible) of each.
        crowd: A group, or an object too hard to count: neither learned nor missed.
        area: Pixels of the object; ``guessed`` if it is that of the box, for want of a better one.
        place: Where the label stands, for messages.
    """

    name: str
    box: list[float] | None = None
    outline: list | dict | None = None
    keypoints: list[float] | None = None
    crowd: bool = False
    area: float | None = None
    guessed: bool = False
    place: str = ''


@dataclass
class Picture:
    """One picture and what is known of it; None means that nobody labelled it for a task, not that it is empty.

    Attributes:
        path: The file, with links followed.
        split: ``'train'``, ``'val'``, ``'test'``, or '' where nothing says it.
        things: Objects with boxes, masks or keypoints.
        label_map: The file with a class per pixel.
        segments: The class of each segment, where the map is a panoptic one.
        label: The class of the whole picture.
        problem: Why it is left out: its labels are not its own, or, once its size was asked for, it cannot be read.
    """

    path: Path
    split: str = ''
    things: list[Thing] | None = None
    label_map: Path | None = None
    segments: dict[int, int] | None = None
    label: str | None = None
    problem: str = ''
    _size: tuple[int, int] | None = field(default=None, repr=False)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height as the picture is loaded, turned as its EXIF says; zeros if it cannot be read."""
        if self._size is None:
            try:
                self._size, _, dark = _head(self.path)
                self.problem = self.problem or dark
            except InputError as error:
                self._size, self.problem = (0, 0), str(error).removeprefix(f'{self.path}: ')
        return self._size


def oriented_size(path: Path) -> tuple[tuple[int, int], int]:
    """Width and height of a picture after it is turned as its EXIF says, and that orientation (1: as it is).

    Raises:
        InputError: It is no picture.
    """
    return _head(path)[:2]


def _head(path: Path) -> tuple[tuple[int, int], int, str]:
    """Size and orientation as of :func:`oriented_size`, and whether the picture would be loaded all but black."""
    try:
        if not path.is_file():
            raise FileNotFoundError('there is no such file')
        with Image.open(path, formats=IMAGE_FORMATS) as image:
            size = image.size
            if size[0] * size[1] > limits.IMAGE_PIXELS:
                most = limits.IMAGE_PIXELS
                raise ValueError(f'{size[0]} x {size[1]} pixels, of which at most {most} are read')
            if len(_loaded_shape(image.format, image.mode)) != 3:
                what = f'a {image.format} with pixels of the mode {image.mode}'
                raise ValueError(f'{what}, which OpenCV {cv2.__version__} does not load: save it as PNG with 8 bits')
            turn, dark = _turn_of(image), ''
            if image.format == 'TIFF':  # which Pillow has turned
                size = image.tag_v2[_WIDTH], image.tag_v2[_HEIGHT]
            if image.mode.startswith('I') and (most := image.getextrema()[1]) < _DARK:
                dark = f'pixels go up to {most} of 65535, which are loaded as {most >> 8} of 255: save it with 8 bits'
    except Exception as error:  # whatever a decoder raises, the file is damaged
        raise InputError(f'{path}: cannot be read ({sentence(error)})') from None
    return (size[::-1] if turn in (5, 6, 7, 8) else size), turn, dark


def _turn_of(image: Image.Image) -> int:
    """The orientation by which OpenCV turns a picture as it loads it: that of EXIF, and not of XMP."""
    exif = Image.Exif()
    if image.format == 'TIFF':
        exif[_ORIENTATION] = image.tag_v2.get(_ORIENTATION, 1)
    elif 'exif' in image.info:
        exif.load(image.info['exif'])
    turn = exif.get(_ORIENTATION, 1)
    if turn == 1:
        return turn
    height, width, _ = _loaded_shape(image.format, image.mode, 6)
    return turn if height > width else 1


@cache
def _loaded_shape(kind: str, mode: str, turn: int = 1) -> tuple[int, ...]:
    """The shape that OpenCV loads a small picture of a format in, wider than high before it is turned.

    It is empty if OpenCV does not load it: what it knows depends on its version.
    """
    image, file, exif = Image.new(mode, (16, 8)), BytesIO(), Image.Exif()
    exif[_ORIENTATION] = turn
    try:
        image.save(file, kind, **({} if turn == 1 else {'exif': exif}))
    except Exception:  # of a form that Pillow reads, and does not write
        return (8, 16, 3)
    return loaded_shape(file.getvalue())


def loaded_shape(content: bytes) -> tuple[int, ...]:
    """The shape of the picture in a file as it is loaded in training: empty if it is not."""
    image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    return () if image is None else image.shape


@dataclass
class Found:
    """What a reader found.

    Attributes:
        format: Its name, for the summary.
        place: The file or folder.
        pictures: By path.
        classes: Names of things, in the order of their labels.
        keypoints: Names; ``skeleton`` joins pairs of them, by number from 0.
        flips: The keypoint that each becomes in the mirror, where a file says it.
        map_names: Name of each value of the label maps; empty where nothing names them.
        colors: Value of each colour (R, G, B), where maps are coloured.
        void: Values of the label maps that mean nothing.
        problems: File and sentence of each thing that is wrong.
        missing: Pictures that are named and not there.
        strict: Whether the set is refused if anything is left out.
        lost: The split of each picture, or of the file in its place, that lost annotations because they are damaged.
    """

    format: str
    place: Path
    pictures: dict[Path, Picture] = field(default_factory=dict)
    classes: list[str] = field(default_factory=list)
    keypoints: list[str] = field(default_factory=list)
    skeleton: list[tuple[int, int]] = field(default_factory=list)
    flips: list[int] = field(default_factory=list)
    map_names: dict[int, str] = field(default_factory=dict)
    colors: dict[tuple[int, int, int], int] = field(default_factory=dict)
    void: set[int] = field(default_factory=set)
    problems: list[tuple[str, str]] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    strict: bool = False
    lost: dict[str, str] = field(default_factory=dict)
    _known: set[str] = field(default_factory=set, repr=False)  # the classes, to find one at once

    def picture(self, path: Path, split: str = '') -> Picture:
        """The picture of a file, new or known."""
        real = Path(os.path.realpath(path))
        made = self.pictures.setdefault(real, Picture(real, split))
        made.split = made.split or split
        return made

    def wrong(self, file: str | Path, what: str) -> None:
        """Take down what is wrong."""
        self.problems.append((str(file), what))

    def leave_out(self, file: str | Path, what: str, picture: str | Path | None = None, split: str = '') -> None:
        """Take down annotations that are damaged, and so left out.

        Args:
            file: The file, and the place in it.
            what: What is wrong, with the name of the field.
            picture: The picture that loses them, where it is known; else the file stands for it.
            split: The split that it would have been in.
        """
        self.wrong(file, f'{what.removeprefix(f"{file}: ")}: left out')
        self.lost.setdefault(str(file) if picture is None else os.path.realpath(picture), split)

    @contextmanager
    def reading(self, file: str | Path, picture: str | Path | None = None, split: str = '') -> Iterator[None]:
        """The boundary around one file, or one annotation: whatever is raised while it is read, it alone is left out.

        Args:
            file, picture, split: As of :meth:`leave_out`.
        """
        try:
            yield
        except Exception as error:
            self.leave_out(file, fault_of(error), picture, split)

    def is_first(self, picture: Picture, file: str | Path) -> bool:
        """Whether nothing was read of a picture before; else a file that has labels of it, too, is taken down."""
        if picture.things is not None:
            self.wrong(file, f'other labels of {picture.path} were read before: left out')
        return picture.things is None

    def add_class(self, name: str) -> str:
        """A class by its name, new or known."""
        if name not in self._known:
            self._known.add(name)
            self.classes.append(name)
        return name

    def things(self) -> Iterator[tuple[Picture, Thing]]:
        """Every thing with its picture."""
        return ((picture, thing) for picture in self.pictures.values() for thing in picture.things or ())

    def tasks(self) -> list[str]:
        """The tasks that there are labels for."""
        kinds = {kind for _, thing in self.things() for kind in ('box', 'outline', 'keypoints') if getattr(thing, kind)}
        has = {
            'boxes': bool(kinds),
            'masks': 'outline' in kinds,
            'semantic': any(picture.label_map for picture in self.pictures.values()),
            'pose': 'keypoints' in kinds and bool(self.keypoints),
            'classes': any(picture.label for picture in self.pictures.values()),
        }
        return [task for task in TASKS if has[task]]

    def labelled(self, task: str) -> list[Picture]:
        """The pictures with labels for a task, by path.

        Raises:
            InputError: Each of them has a problem.
        """
        member = {'semantic': 'label_map', 'classes': 'label'}.get(task, 'things')
        there = sorted((p for p in self.pictures.values() if getattr(p, member) is not None), key=lambda p: p.path)
        if there and all(min(picture.size) == 0 or picture.problem for picture in there):
            first = f'{there[0].path}: {there[0].problem}'
            raise InputError(f'{self.place}: none of {len(there)} pictures can be used, the first: {first}')
        return there


def split_of(*names: str | Path) -> str:
    """The split that the last of some names speaks of: ``'train'`` for ``instances_train2017.json``; '' for none."""
    for name in reversed(names):
        for part in reversed(Path(name).parts):
            words = _SPLIT.findall(re.sub(r'[\d_\-.]+', ' ', part.lower()))
            if words:
                return 'val' if words[-1] == 'dev' else words[-1]
    return ''


def held_out_first(splits: Iterable[str]) -> str:
    """The split of a picture that is in several: it validates rather than tests, and tests rather than trains."""
    return min(splits, key=_HELD_OUT_FIRST.index)


def assign_splits(pictures: Sequence[Picture]) -> str:
    """Give every picture a split, where files give none for training or validation; says what was done.

    Pictures are held out by a hash of their names, so that the same ones are whenever the same set is read.
    """
    there = {picture.split for picture in pictures}
    if not there & {'train', ''}:  # a set of which nothing is for training is not split at all
        for picture in pictures:
            picture.split = ''
        there = {''}
    if {'train', 'val'} <= there and '' not in there:
        return ''
    if {'train', 'test'} <= there and '' not in there:
        return 'no split for validation: the test split serves'
    free = [p for p in pictures if p.split == ''] or [p for p in pictures if p.split == 'train']
    free.sort(key=lambda p: (crc32(p.path.name.encode()), p.path))
    held = max(1, round(len(free) / _HELD_OUT)) if len(free) > 1 and 'val' not in there else 0
    for number, picture in enumerate(free):
        picture.split = 'val' if number < held else 'train'
    if {'val', ''} <= there:
        return f'{len(free)} pictures are in no split: they train'
    return f'{held} of {len(free)} pictures, chosen by a hash of their names, are held out to validate' if held else ''


# --- paths, as other machines wrote them ---


def followed(path: Path) -> Path:
    """A path through symbolic links that a checkout without links left as files that hold their target."""
    place, parts = Path(path.anchor), list(path.parts[1:] if path.anchor else path.parts)
    for number, part in enumerate(parts, 1):
        place = place / part
        if place.suffix:
            continue
        try:
            state = place.stat()
            if stat.S_ISREG(state.st_mode) and state.st_size < 256:
                target = place.parent / head(place).strip()
                place = target if target.is_dir() else place
        except (OSError, ValueError):  # of a name that is none here, and so are those below it
            return place.joinpath(*parts[number:])
    return place


def is_endless(text: str) -> bool:
    """Whether a path that somebody wrote is longer than any that there is: it means nothing."""
    return len(text) > limits.PATH_LETTERS or len(as_path(text).parts) > limits.PATH_PARTS


def located(text: str, roots: Iterable[Path]) -> Path | None:
    """What a path that somebody wrote means here: as it is, below a root, or by as many of its last parts as fit."""
    if is_endless(text):
        return None
    given = as_path(text)
    if given == Path() and '.' not in text:  # blank: not the folder itself
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
    except (OSError, ValueError):  # a name that is too long, or a folder that is closed
        return False


def is_text(name: str) -> bool:
    """Whether a name of a file is UTF-8, so that it can be written and printed."""
    return not any('\ud800' <= letter <= '\udfff' for letter in name)


def _identity(folder: Path) -> tuple[int, int]:
    state = folder.stat()
    return state.st_dev, state.st_ino


def _is(kind: Callable[[], bool]) -> bool:
    try:
        return kind()
    except OSError:  # links in a circle
        return False


class Files:
    """The files below a folder, walked once.

    Args:
        place: The folder; or one file of labels, which alone is read, while pictures are looked for around it.

    Attributes:
        root: The folder that was walked.
        only: The one file of labels, or None.
        problems: Files and folders that cannot be read, and why.
    """

    def __init__(self, place: Path) -> None:
        if not place.is_dir():
            require_file(place, 'data')
        self.only = None if place.is_dir() else place
        beside = place.parent.parent if place.parent.name.lower() in _FOLDERS_OF_LABELS else place.parent
        self.root = place if self.only is None else beside
        self.by_folder: dict[Path, list[str]] = {}
        self.problems: list[tuple[str, str]] = []
        self.kinds: dict[Path, str] = {}  # of JSON files that were looked into
        self._walk()
        self._images: dict[str, list[Path]] | None = None
        self._ends: dict[str, ByEnd] = {}
        self._fitting: dict[tuple, list[Path]] = {}
        self._by_stem: dict[Path, dict[str, Path]] = {}

    def _walk(self) -> None:
        """Take down the regular files of the folders here, then behind links; a link leads nowhere twice."""
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
        """Take down the files below a folder, except behind links to other folders: these are returned."""
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
                self.problems.append((str(folder), f'cannot be read ({error.strerror}): left out'))
                continue
            for entry in entries:
                if entry.name.startswith('.'):
                    continue
                if not is_text(entry.name):
                    shown = os.fsencode(entry.path).decode(errors='backslashreplace')
                    self.problems.append((shown, 'its name is not UTF-8: left out'))
                elif _is(entry.is_dir):
                    if not entry.name.startswith('__MACOSX') and entry.name != _RUNS:
                        (links if entry.is_symlink() else waiting).append(Path(entry.path))
                    if entry.name.lower().endswith(IMAGE_SUFFIXES + ANNOTATION_SUFFIXES):
                        self.problems.append((entry.path, 'is a folder, called like a file: not read'))
                elif _is(entry.is_file):
                    names.append(entry.name)
                elif entry.name.lower().endswith(IMAGE_SUFFIXES + ANNOTATION_SUFFIXES):
                    what = 'leads to no file (of DVC or git-annex, fetch it)' if entry.is_symlink() else 'is no file'
                    self.problems.append((entry.path, f'{what}: left out'))
        return links

    def ending(self, *suffixes: str) -> list[Path]:
        """The files with one of the suffixes, in lower case, by path."""
        return [
            folder / name
            for folder, names in self.by_folder.items()
            for name in names
            if name.lower().endswith(suffixes)
        ]

    def text(self, path: Path) -> str:
        """The text of a file; '' of one that cannot be read, which is taken down."""
        try:
            return read_text(path)
        except DatasetError as error:
            problem = (str(path), f'{fault_of(error).removeprefix(f"{path}: ")}: left out')
            self.problems += [problem] if problem not in self.problems else []
            return ''

    def labels(self, *suffixes: str) -> list[Path]:
        """As :meth:`ending`, for files of labels: the one that was named, or all."""
        if self.only is None:
            return self.ending(*suffixes)
        return [self.only] if self.only.name.lower().endswith(suffixes) else []

    def split_of(self, path: Path) -> str:
        """The split that the folders of a file speak of, from the root on."""
        roots = [root for root in (self.root, Path(os.path.realpath(self.root))) if path.is_relative_to(root)]
        return split_of(path.relative_to(roots[0]).parent) if roots else ''

    def beside(self, name: str, *near: Path) -> Path | None:
        """The image of a name without a suffix in one of the folders that are near."""
        for folder in near:
            if folder not in self._by_stem:
                names = self.by_folder.get(folder)
                names = filter(is_text, os.listdir(folder)) if names is None and folder.is_dir() else names or ()
                there = [folder / each for each in names if each.lower().endswith(IMAGE_SUFFIXES)]
                there.sort(key=lambda path: IMAGE_SUFFIXES.index(path.suffix.lower()), reverse=True)
                self._by_stem[folder] = {path.stem: path for path in there}
            if name in self._by_stem[folder]:
                return self._by_stem[folder][name]
        return None

    def images(self, names: Iterable[str], *near: Path, split: str = '') -> dict[str, Path]:
        """The image of each name, as :meth:`image` finds it; names without one are left out.

        Of names that lead to one image it has the one with the most of its path: where ``cam1/0.jpg`` alone was copied,
        ``cam2/0.jpg`` is not there.

        Raises:
            InputError: Several names fit an image alike, or several images a name.
        """
        leading: dict[Path, list[str]] = {}
        for name in dict.fromkeys(names):
            if (place := self.image(name, *near, split=split)) is not None:
                leading.setdefault(place, []).append(name)
        made = {}
        for place, fitting in leading.items():
            fitting = nearest(fitting, place)
            if len(fitting) > 1:
                raise InputError(f'{place}: {len(fitting)} names of labels lead to it: {fitting[0]}, {fitting[1]}')
            made[fitting[0]] = place
        return made

    def image(self, name: str, *near: Path, split: str = '') -> Path | None:
        """The image of a name that may have folders: in one of the folders that are near, else the one below the root.

        Of several that fit alike, it is the one in a folder of the split.

        Raises:
            InputError: Several fit.
        """
        if is_endless(name):
            return None
        if (found := located(name, [*near])) is not None and found.is_file():
            return found
        if self._images is None:
            self._images = {}
            beside = self.root.parent / 'images'  # shared with other folders of labels
            has_none = beside.is_dir() and not self.ending(*IMAGE_SUFFIXES[:2])
            for path in self.ending(*IMAGE_SUFFIXES) + (Files(beside).ending(*IMAGE_SUFFIXES) if has_none else []):
                self._images.setdefault(path.name, []).append(path)
        fitting = self._images.get(as_path(name).name, [])
        fitting = self._nearest(as_path(name), fitting, split) if len(fitting) > 1 else fitting
        if len(fitting) > 1:
            raise InputError(f'{name}: {len(fitting)} images are called so: {fitting[0]}, {fitting[1]}')
        return fitting[0] if fitting else None

    def _nearest(self, given: Path, images: list[Path], split: str) -> list[Path]:
        """Those of some images of one name that fit it best, each file once."""
        if given.name not in self._ends:
            self._ends[given.name] = ByEnd(images)
        end = self._ends[given.name].end_of(given)
        if (end, split) not in self._fitting:
            fitting = self._ends[given.name].paths[end]
            if split and len(fitting) > 1:
                fitting = [path for path in fitting if self.split_of(path) == split] or fitting
            own = {os.path.realpath(path): path for path in reversed(fitting)}
            self._fitting[end, split] = list(reversed(own.values()))
        return self._fitting[end, split]


class ByEnd:
    """Paths by each of their ends: those with the most last parts in common with another are found at once.

    Args:
        paths: Files or folders.
        of_folders: Whether the ends are those of the folders that files are in.

    Attributes:
        paths: The paths with an end; all of them with the empty one.
    """

    def __init__(self, paths: Iterable[Path], of_folders: bool = False) -> None:
        self.paths: dict[tuple[str, ...], list[Path]] = {}
        for path in paths:
            parts = (path.parent if of_folders else path).parts[-limits.PATH_PARTS :]
            for start in range(len(parts) + 1):
                self.paths.setdefault(parts[start:], []).append(path)

    def end_of(self, other: Path) -> tuple[str, ...]:
        """The longest end of a path that any of the paths has."""
        parts, count = other.parts, 0
        while count < len(parts) and parts[-count - 1 :] in self.paths:
            count += 1
        return parts[len(parts) - count :]


def as_path(text: str | Path) -> Path:
    """A path that Windows may have written."""
    return Path(str(text).strip().replace('\\', '/'))


def nearest(paths: Sequence[AnyPath], other: str | Path) -> list[AnyPath]:
    """Those of some paths that have the most last parts in common with another one."""
    counts = [_common_end(as_path(path).parts, as_path(other).parts) for path in paths]
    most = max(counts, default=0)
    return [path for path, count in zip(paths, counts) if count == most]


def _common_end(one: Sequence[str], other: Sequence[str]) -> int:
    pairs = zip(reversed(one), reversed(other))
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
