"""What a folder of labelled pictures holds, whatever wrote it: pictures, things on them, names, and what is wrong."""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from zlib import crc32

from PIL import Image

from icconv_mm.errors import InputError
from icconv_mm.files import require_file

IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp')
TASKS = ('boxes', 'masks', 'semantic', 'pose', 'classes')
SPLITS = ('train', 'val', 'test')
_SPLIT = re.compile(r'(?<![a-z])(train|val|dev|test)(?:ing|id|idation)?(?![a-z])')
_FOLDERS_OF_LABELS = ('annotations', 'annotation', 'labels')
_ORIENTATION = 0x0112  # EXIF
_HELD_OUT = 5  # one picture of so many validates, where nobody split the set


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
        problem: Why it cannot be read, once its size was asked for.
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
                self._size = oriented_size(self.path)[0]
            except InputError as error:
                self._size, self.problem = (0, 0), str(error).removeprefix(f'{self.path}: ')
        return self._size


def oriented_size(path: Path) -> tuple[tuple[int, int], int]:
    """Width and height of a picture after it is turned as its EXIF says, and that orientation (1: as it is).

    Raises:
        InputError: It is no picture.
    """
    try:
        with Image.open(path) as image:
            turn = Image.Image.getexif(image).get(_ORIENTATION, 1)  # that of PNGs decodes the whole picture
            size = image.size
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f'{path}: cannot be read ({error})') from None
    return (size[::-1] if turn in (5, 6, 7, 8) else size), turn


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
        """The pictures with labels for a task, by path."""
        member = {'semantic': 'label_map', 'classes': 'label'}.get(task, 'things')
        return sorted((p for p in self.pictures.values() if getattr(p, member) is not None), key=lambda p: p.path)


def split_of(*names: str | Path) -> str:
    """The split that the last of some names speaks of: ``'train'`` for ``instances_train2017.json``; '' for none."""
    for name in reversed(names):
        for part in reversed(Path(name).parts):
            words = _SPLIT.findall(re.sub(r'[\d_\-.]+', ' ', part.lower()))
            if words:
                return 'val' if words[-1] == 'dev' else words[-1]
    return ''


def assign_splits(pictures: Sequence[Picture]) -> str:
    """Give every picture a split, where files give none for training or validation; says what was done.

    Pictures are held out by a hash of their names, so that the same ones are whenever the set is read.
    """
    for picture in pictures:  # a set of which nothing is for training is not split at all
        if not any(each.split == 'train' for each in pictures):
            picture.split = ''
    there = {picture.split for picture in pictures}
    if {'train', 'val'} <= there and '' not in there:
        return ''
    if {'train', 'test'} <= there and '' not in there:
        return 'no split for validation: the test split serves'
    free = [p for p in pictures if p.split == ''] or [p for p in pictures if p.split == 'train']
    free.sort(key=lambda p: (crc32(p.path.name.encode()), p.path))
    held = max(1, round(len(free) / _HELD_OUT)) if len(free) > 1 and 'val' not in there else 0
    for number, picture in enumerate(free):
        picture.split = 'val' if number < held else 'train'
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
    given = Path(text.strip().replace('\\', '/'))
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
            below[:] = sorted(name for name in below if not name.startswith(('.', '__MACOSX')))
            self.by_folder[Path(folder)] = sorted(name for name in names if not name.startswith('.'))
        self._images: dict[str, list[Path]] | None = None

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

    def image(self, name: str, *near: Path) -> Path | None:
        """The image of a name that may have folders: in one of the folders that are near, else the one below the root.

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
        parts = Path(name.replace('\\', '/')).parts
        fitting = self._images.get(parts[-1] if parts else '', [])
        if len(fitting) > 1:
            common = [sum(1 for _ in _common_end(path.parts, parts)) for path in fitting]
            fitting = [path for path, count in zip(fitting, common) if count == max(common)]
        if len({os.path.realpath(path) for path in fitting}) > 1:
            raise InputError(f'{name}: {len(fitting)} images are called so: {fitting[0]}, {fitting[1]}')
        return fitting[0] if fitting else None


def _common_end(one: Sequence[str], other: Sequence[str]) -> Iterator[str]:
    for a, b in zip(reversed(one), reversed(other)):
        if a != b:
            return
        yield a
