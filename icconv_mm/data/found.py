"""What a folder of labelled pictures holds, whatever wrote it: pictures, things on them, names, and what is wrong."""

import itertools
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar
from zlib import crc32

from PIL import Image

from icconv_mm.errors import InputError
from icconv_mm.files import require_file

AnyPath = TypeVar('AnyPath', str, Path)

IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp')
TASKS = ('boxes', 'masks', 'semantic', 'pose', 'classes')
SPLITS = ('train', 'val', 'test')
_SPLIT = re.compile(r'(?<![a-z])(train|val|dev|test)(?:ing|id|idation)?(?:set|images)?(?![a-z])')
_HELD_OUT_FIRST = ('val', 'test', 'train', '')  # a picture that is learned from must not judge what was learned
_RUNS = 'work_dirs'  # what a training writes, where it was started in the folder of the pictures
_FOLDERS_OF_LABELS = ('annotations', 'annotation', 'labels')
_ORIENTATION = 0x0112  # EXIF
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
        with Image.open(path) as image:
            turn = Image.Image.getexif(image).get(_ORIENTATION, 1)  # that of PNGs decodes the whole picture
            turn = 1 if image.format == 'WEBP' else turn  # which OpenCV loads as it is
            size, dark = image.size, ''
            if image.mode.startswith('I') and (most := image.getextrema()[1]) < _DARK:
                dark = f'pixels go up to {most} of 65535, which are loaded as {most >> 8} of 255: save it with 8 bits'
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f'{path}: cannot be read ({error})') from None
    return (size[::-1] if turn in (5, 6, 7, 8) else size), turn, dark


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

    def picture(self, path: Path, split: str = '') -> Picture:
        """The picture of a file, new or known."""
        real = Path(os.path.realpath(path))
        made = self.pictures.setdefault(real, Picture(real, split))
        made.split = made.split or split
        return made

    def wrong(self, file: str | Path, what: str) -> None:
        """Take down what is wrong."""
        self.problems.append((str(file), what))

    def is_first(self, picture: Picture, file: str | Path) -> bool:
        """Whether nothing was read of a picture before; else a file that has labels of it, too, is taken down."""
        if picture.things is not None:
            self.wrong(file, f'other labels of {picture.path} were read before: left out')
        return picture.things is None

    def add_class(self, name: str) -> str:
        """A class by its name, new or known."""
        if name not in self.classes:
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
    place = Path(path.anchor)
    for part in path.parts[1:] if path.anchor else path.parts:
        place = place / part
        if not place.suffix and place.is_file() and place.stat().st_size < 256:
            target = place.parent / place.read_text(errors='replace').strip()
            place = target if target.is_dir() else place
    return place


def located(text: str, roots: Iterable[Path]) -> Path | None:
    """What a path that somebody wrote means here: as it is, below a root, or by as many of its last parts as fit."""
    given = as_path(text)
    if given.is_absolute() and followed(given).exists():
        return given
    parts = [part for part in given.parts if part not in ('/', '.')]
    for root in roots:
        if followed(root / given).exists() and not given.is_absolute():
            return root / given
        for start in range(len(parts)):
            if parts[start] != '..' and followed(candidate := root.joinpath(*parts[start:])).exists():
                return candidate
    return None


class Files:
    """The files below a folder, walked once.

    Args:
        place: The folder; or one file of labels, which alone is read, while pictures are looked for around it.

    Attributes:
        root: The folder that was walked.
        only: The one file of labels, or None.
    """

    def __init__(self, place: Path) -> None:
        if not place.is_dir():
            require_file(place, 'data')
        self.only = None if place.is_dir() else place
        beside = place.parent.parent if place.parent.name.lower() in _FOLDERS_OF_LABELS else place.parent
        self.root = place if self.only is None else beside
        self.by_folder: dict[Path, list[str]] = {}
        for folder, below, names in os.walk(self.root, followlinks=True):
            below[:] = sorted(name for name in below if not name.startswith(('.', '__MACOSX')) and name != _RUNS)
            self.by_folder[Path(folder)] = sorted(name for name in names if not name.startswith('.'))
        self._images: dict[str, list[Path]] | None = None
        self._by_stem: dict[Path, dict[str, Path]] = {}

    def ending(self, *suffixes: str) -> list[Path]:
        """The files with one of the suffixes, in lower case, by path."""
        return [
            folder / name
            for folder, names in self.by_folder.items()
            for name in names
            if name.lower().endswith(suffixes)
        ]

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
                names = os.listdir(folder) if names is None and folder.is_dir() else names or ()
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
        if (found := located(name, [*near])) is not None and found.is_file():
            return found
        if self._images is None:
            self._images = {}
            beside = self.root.parent / 'images'  # shared with other folders of labels
            has_none = beside.is_dir() and not self.ending(*IMAGE_SUFFIXES[:2])
            for path in self.ending(*IMAGE_SUFFIXES) + (Files(beside).ending(*IMAGE_SUFFIXES) if has_none else []):
                self._images.setdefault(path.name, []).append(path)
        fitting = nearest(self._images.get(as_path(name).name, []), name)
        if split and len(fitting) > 1:
            fitting = [path for path in fitting if self.split_of(path) == split] or fitting
        if len({os.path.realpath(path) for path in fitting}) > 1:
            raise InputError(f'{name}: {len(fitting)} images are called so: {fitting[0]}, {fitting[1]}')
        return fitting[0] if fitting else None


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
