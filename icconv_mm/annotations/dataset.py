"""What a folder of labelled images holds, whatever wrote it: images, objects on them, names, and what is wrong.

:class:`Converted` is what a task needs of it for training, as it was written; one's own keypoints are in a few words,
instead of the two tables that mmpose asks for.
"""

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np

from icconv_mm.annotations import TASKS
from icconv_mm.annotations.images_on_disk import _head
from icconv_mm.annotations.reading import fault_of
from icconv_mm.errors import InputError, naming
from icconv_mm.files import require_file

SPLITS = ('train', 'val', 'test')
_HELD_OUT_FIRST = ('val', 'test', 'train', '')  # a training image must not evaluate the training
_HELD_OUT = 5  # one image of so many validates, where nobody split the set


@dataclass
class Annotation:
    """One object on an image.

    Attributes:
        name: Its class.
        box: x, y, width, height in pixels; None until it is taken from the segmentation or the keypoints.
        segmentation: COCO's polygons or RLE; None without a mask.
        keypoints: x, y and visibility (0 unlabelled, 1 hidden, 2 visible) of each.
        crowd: A group, or an object too hard to count: neither learned nor missed.
        area: Pixels of the object; ``guessed`` if it is that of the box, for want of a better one.
        place: Where the label stands, for messages.
    """

    name: str
    box: list[float] | None = None
    segmentation: list | dict | None = None
    keypoints: list[float] | None = None
    crowd: bool = False
    area: float | None = None
    guessed: bool = False
    location: str = ''


@dataclass
class AnnotatedImage:
    """One image and what is known of it; None means that nobody labelled it for a task, not that it is empty.

    Attributes:
        path: The file, with links followed.
        split: ``'train'``, ``'val'``, ``'test'``, or '' where nothing says it.
        objects: Objects with boxes, masks or keypoints.
        seg_map: The file with a class per pixel.
        segments: The class of each segment, where the map is a panoptic one.
        label: The class of the whole image.
        problem: Why it is left out: its labels are not its own, or, once its size was asked for, it cannot be read.
    """

    path: Path
    split: str = ''
    annotations: list[Annotation] | None = None
    seg_map: Path | None = None
    segments: dict[int, int] | None = None
    label: str | None = None
    problem: str = ''
    _size: tuple[int, int] | None = field(default=None, repr=False)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height as the image is loaded, rotated by its EXIF orientation; zeros if it cannot be read."""
        if self._size is None:
            try:
                self._size, _, dark = _head(self.path)
                self.problem = self.problem or dark
            except InputError as error:
                self._size, self.problem = (0, 0), str(error).removeprefix(f'{self.path}: ')
        return self._size


@dataclass
class Dataset:
    """What a reader found.

    Attributes:
        format: Its name, for the summary.
        location: The file or folder.
        images: By path.
        classes: Names of objects, in the order of their labels.
        keypoints: Names; ``skeleton`` joins pairs of them, by number from 0.
        flip_indices: The keypoint that each becomes by a flip, where a file says it.
        seg_map_classes: Name of each value of the segmentation maps; empty where nothing names them.
        colors: Value of each colour (R, G, B), where maps are coloured.
        ignore_index: Values of the segmentation maps that are ignored.
        warnings: File and message of each defect.
        missing: Images that are named and not there.
        strict: Whether the set is refused if anything is left out.
        lost: The split of each image, or of the file in its place, that lost annotations because they are damaged.
    """

    format: str
    location: Path
    images: dict[Path, AnnotatedImage] = field(default_factory=dict)
    classes: list[str] = field(default_factory=list)
    keypoints: list[str] = field(default_factory=list)
    skeleton: list[tuple[int, int]] = field(default_factory=list)
    flip_indices: list[int] = field(default_factory=list)
    seg_map_classes: dict[int, str] = field(default_factory=dict)
    colors: dict[tuple[int, int, int], int] = field(default_factory=dict)
    ignore_index: set[int] = field(default_factory=set)
    warnings: list[tuple[str, str]] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    strict: bool = False
    lost: dict[str, str] = field(default_factory=dict)
    _known: set[str] = field(default_factory=set, repr=False)  # the classes, to find one at once

    def image(self, path: Path, split: str = '') -> AnnotatedImage:
        """The image of a file, new or known."""
        real = Path(os.path.realpath(path))
        made = self.images.setdefault(real, AnnotatedImage(real, split))
        made.split = made.split or split
        return made

    def warn(self, file: str | Path, what: str) -> None:
        """Take down what is wrong."""
        self.warnings.append((str(file), what))

    def leave_out(self, file: str | Path, what: str, image: str | Path | None = None, split: str = '') -> None:
        """Take down annotations that are damaged, and so left out.

        Args:
            file: The file, and the place in it.
            what: What is wrong, with the name of the field.
            image: The image that loses them, where it is known; else the file stands for it.
            split: The split that it would have been in.
        """
        self.warn(file, f'{what.removeprefix(f"{file}: ")}: left out')
        self.lost.setdefault(str(file) if image is None else os.path.realpath(image), split)

    @contextmanager
    def reading(self, file: str | Path, image: str | Path | None = None, split: str = '') -> Iterator[None]:
        """The boundary around one file, or one annotation: whatever is raised while it is read, it alone is left out.

        Args:
            file, image, split: As of :meth:`leave_out`.
        """
        try:
            yield
        except Exception as error:
            self.leave_out(file, fault_of(error), image, split)

    def is_first(self, image: AnnotatedImage, file: str | Path) -> bool:
        """Whether nothing was read of an image before; else a file that has labels of it, too, is taken down."""
        if image.annotations is not None:
            self.warn(file, f'other labels of {image.path} were read before: left out')
        return image.annotations is None

    def add_class(self, name: str) -> str:
        """A class by its name, new or known."""
        if name not in self._known:
            self._known.add(name)
            self.classes.append(name)
        return name

    def annotations(self) -> Iterator[tuple[AnnotatedImage, Annotation]]:
        """Every object with its image."""
        return ((image, annotation) for image in self.images.values() for annotation in image.annotations or ())

    def tasks(self) -> list[str]:
        """The tasks that there are labels for."""
        kinds = {
            kind
            for _, annotation in self.annotations()
            for kind in ('box', 'segmentation', 'keypoints')
            if getattr(annotation, kind)
        }
        has = {
            'detection': bool(kinds),
            'instance': 'segmentation' in kinds,
            'semantic': any(image.seg_map for image in self.images.values()),
            'pose': 'keypoints' in kinds and bool(self.keypoints),
            'classification': any(image.label for image in self.images.values()),
        }
        return [task for task in TASKS if has[task]]

    def labelled(self, task: str) -> list[AnnotatedImage]:
        """The images with labels for a task, by path.

        Raises:
            InputError: Each of them has a problem.
        """
        member = {'semantic': 'seg_map', 'classification': 'label'}.get(task, 'annotations')
        there = sorted((p for p in self.images.values() if getattr(p, member) is not None), key=lambda p: p.path)
        if there and all(min(image.size) == 0 or image.problem for image in there):
            first = f'{there[0].path}: {there[0].problem}'
            raise InputError(f'{self.location}: none of {len(there)} images can be used, the first: {first}')
        return there


def held_out_first(splits: Iterable[str]) -> str:
    """The split of an image that is in several: it validates rather than tests, and tests rather than trains."""
    return min(splits, key=_HELD_OUT_FIRST.index)


def assign_splits(images: Sequence[AnnotatedImage]) -> str:
    """Give every image a split, where files give none for training or validation; says what was done.

    Images are held out by a hash of their names, so that the same ones are whenever the same set is read.
    """
    there = {image.split for image in images}
    if not there & {'train', ''}:  # a set of which nothing is for training is not split at all
        for image in images:
            image.split = ''
        there = {''}
    if {'train', 'val'} <= there and '' not in there:
        return ''
    if {'train', 'test'} <= there and '' not in there:
        return 'no split for validation: the test split serves'
    free = [p for p in images if p.split == ''] or [p for p in images if p.split == 'train']
    free.sort(key=lambda p: (crc32(p.path.name.encode()), p.path))
    held = max(1, round(len(free) / _HELD_OUT)) if len(free) > 1 and 'val' not in there else 0
    for number, image in enumerate(free):
        image.split = 'val' if number < held else 'train'
    if {'val', ''} <= there:
        return f'{len(free)} images are in no split: they train'
    return f'{held} of {len(free)} images, chosen by a hash of their names, are held out to validate' if held else ''


# --- paths, as other machines wrote them ---


@dataclass
class Converted:
    """One task's labels, as written for a training.

    Attributes:
        task: One of :data:`icconv_mm.annotations.TASKS`.
        root: The folder that holds all images.
        files: The file of each split; of another one where :func:`fill_splits` says so.
        classes: Names by label.
        counts: Objects of each class; shares of the pixels for segmentation maps.
        splits: How many images each split has.
        paths: The images of each split; ``annotations``, how many they have.
        sizes: Width and height of each image, [n, 2].
        boxes: Width and height of each object in shares of the longer side of its image, [m, 2].
        keypoints, skeleton: As of :class:`icconv_mm.annotations.dataset.Dataset`.
        flip_pairs: Pairs of keypoints that are swapped by a flip; None where nothing says which.
        notes: Messages about what was decided.
    """

    task: str
    root: Path
    files: dict[str, Path] = field(default_factory=dict)
    classes: list[str] = field(default_factory=list)
    counts: dict[str, float] = field(default_factory=dict)
    splits: dict[str, int] = field(default_factory=dict)
    paths: dict[str, list[Path]] = field(default_factory=dict)
    annotations: dict[str, int] = field(default_factory=dict)
    sizes: np.ndarray = field(default_factory=lambda: np.zeros((0, 2)))
    boxes: np.ndarray = field(default_factory=lambda: np.zeros((0, 2)))
    keypoints: list[str] = field(default_factory=list)
    skeleton: list[tuple[int, int]] = field(default_factory=list)
    flip_pairs: list[tuple[str, str]] | None = None
    notes: list[str] = field(default_factory=list)


KEYPOINTS_FILE = 'pose_keypoints.json'  # beside the annotations of one's own images
_SIDES = (('left', 'right'), ('Left', 'Right'), ('LEFT', 'RIGHT'), ('L', 'R'), ('l', 'r'))
# How exact people label a keypoint, in shares of the square root of the area: COCO's, by the last word of its name.
_SIGMAS = dict(nose=0.026, eye=0.025, ear=0.035, shoulder=0.079, elbow=0.072, wrist=0.062, hip=0.107, knee=0.087)
_SIGMAS |= dict(ankle=0.089)
_SIGMA = 0.05  # of any other


def keypoint_metainfo(metainfo: Mapping[str, Any]) -> dict[str, Any]:
    """mmpose's metainfo of a short one; one that is long already stays as it is.

    Args:
        metainfo: ``keypoints``, names in their order; and, each optional, ``skeleton``, pairs of numbers from 0 that a
            line joins; ``flip_pairs``, pairs of names that are swapped by a flip, by default ``left...`` and
            ``right...``; ``sigmas``, how exact each keypoint can be labelled, by default :func:`sigmas_of`;
            ``classes``.

    Raises:
        InputError: A name is there twice, or a pair or a sigma does not fit the keypoints.
    """
    if 'keypoints' not in metainfo or 'keypoint_info' in metainfo:
        return dict(metainfo)
    names = list(metainfo['keypoints'])
    if len(set(names)) < len(names):
        raise InputError(f'metainfo.keypoints: a name is there twice: {names}')
    pairs = metainfo.get('flip_pairs')
    swap: dict[str, str] = {}
    for a, b in find_flip_pairs(names) if pairs is None else pairs:
        if not {a, b} <= set(names):
            raise InputError(f'metainfo.flip_pairs: ({a!r}, {b!r}) are not both of the keypoints {names}')
        swap |= {a: b, b: a}
    links = [tuple(link) for link in metainfo.get('skeleton') or ()]
    for link in links:
        if len(link) != 2 or not all(isinstance(each, int) and 0 <= each < len(names) for each in link):
            raise InputError(f'metainfo.skeleton: {link} is no pair of numbers from 0 to {len(names) - 1}')
    sigmas = list(metainfo.get('sigmas') or sigmas_of(names))
    if len(sigmas) != len(names) or min(sigmas) <= 0:
        raise InputError(f'metainfo.sigmas: expected {len(names)} numbers above 0, got {sigmas}')
    rest = {key: value for key, value in metainfo.items() if key not in ('keypoints', 'skeleton', 'flip_pairs')}
    return {
        'dataset_name': 'own keypoints',
        **rest,
        'keypoint_info': {i: dict(id=i, name=name, swap=swap.get(name, '')) for i, name in enumerate(names)},
        'skeleton_info': {i: dict(id=i, link=(names[a], names[b])) for i, (a, b) in enumerate(links)},
        'joint_weights': [1.0] * len(names),
        'sigmas': sigmas,
    }


def read_keypoints(metainfo: Mapping[str, Any]) -> dict[str, Any]:
    """A metainfo of a config whose ``keypoints`` is the name of a JSON file, with what the file says in its place.

    Raises:
        MissingFileError, InputError: There is no such file, or it is none.
    """
    path = metainfo.get('keypoints')
    if not isinstance(path, str):
        return dict(metainfo)
    require_file(path, 'metainfo.keypoints')
    with naming(path, OSError, ValueError, TypeError):
        return {**metainfo, **json.loads(Path(path).read_bytes())}


def sigmas_of(names: Sequence[str]) -> list[float]:
    """COCO's values for eyes, shoulders, ... and 0.05 for the rest."""
    return [_SIGMAS.get(re.split(r'[^a-z]', name.lower())[-1], _SIGMA) for name in names]


def find_flip_pairs(names: Sequence[str]) -> list[tuple[str, str]]:
    """Names that differ by side alone: ``left_eye`` and ``right_eye``, ``L_paw`` and ``R_paw``, ``lhip``, ``rhip``."""
    pairs = []
    for name in names:
        for left, right in _SIDES:
            letter = rf'(?:(?<![A-Za-z]){left}(?![a-z])|^{left}(?=[a-z]{{2}})|(?<=[a-z_]){left}$)'
            pattern = left if len(left) > 1 else letter
            other = re.sub(pattern, right, name, count=1)
            if other != name and other in names:
                pairs.append((name, other))
                break
    return pairs
