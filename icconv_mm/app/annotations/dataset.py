"""The annotations of a folder in one form for all formats: images, annotations, class names and warnings.

:class:`Converted` holds the files and figures that a task's training needs; :func:`keypoint_metainfo` turns a short
description of keypoints into the two tables that mmpose requires.
"""

import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from zlib import crc32

import numpy as np

from icconv_mm.datasets.image_files import oriented_size
from icconv_mm.datasets.kinds import TASKS
from icconv_mm.datasets.reading import Problems, fault_of
from icconv_mm.errors import ArgumentError, InputError

SPLITS = ('train', 'val', 'test')
_HELD_OUT_FIRST = ('val', 'test', 'train', '')  # an image of several splits must not be in training and in evaluation
_HELD_OUT = 5  # one image in five is held out for validation if a dataset has no splits


@dataclass(slots=True)
class Annotation:
    """One annotated object on an image.

    Attributes:
        name: Its class.
        box: x, y, width, height in pixels; None until it is computed from the segmentation or the keypoints.
        segmentation: COCO polygons or RLE; None without a mask.
        keypoints: x, y and visibility (0 unlabelled, 1 hidden, 2 visible) of each keypoint.
        crowd: Whether it is a group, or an object marked as difficult: ignored in training and evaluation.
        area: Area of the object in pixels; ``guessed`` if it is only the area of the box.
        location: File and entry of the annotation, for messages.
        score: Of a prediction; None for an annotation.
    """

    name: str
    box: list[float] | None = None
    segmentation: list | dict | None = None
    keypoints: list[float] | None = None
    crowd: bool = False
    area: float | None = None
    guessed: bool = False
    location: str = ''
    score: float | None = None


@dataclass(slots=True)
class AnnotatedImage:
    """One image and its annotations; None means not annotated for a task, as opposed to empty.

    Attributes:
        path: The file, with symbolic links resolved.
        split: ``'train'``, ``'val'``, ``'test'``, or '' if the dataset gives none.
        annotations: Objects with boxes, masks or keypoints.
        seg_map: The file of the segmentation map, with a class for every pixel.
        segments: The class of each segment of a panoptic map.
        labels: Classes of the whole image, all that its annotations give.
        problem: Why the image is skipped: its annotations belong to another one, or (known once its size was read)
            it cannot be read.
        link: The link by which the file was found, whose name is written to other formats; None without one.
    """

    path: Path
    split: str = ''
    annotations: list[Annotation] | None = None
    seg_map: Path | None = None
    segments: dict[int, int] | None = None
    labels: list[str] = field(default_factory=list)
    problem: str = ''
    link: Path | None = None
    _size: tuple[int, int] | None = field(default=None, repr=False)

    @property
    def label(self) -> str | None:
        """The class of the whole image; None if it has none, or several."""
        return self.label_among(self.labels)

    def label_among(self, classes: Collection[str]) -> str | None:
        """Returns the only label of the image that is one of the classes, which a network learns; else None."""
        names = {label for label in self.labels if label in classes}
        return names.pop() if len(names) == 1 else None

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the image as loaded, after its EXIF rotation; zeros if it cannot be read."""
        if self._size is None:
            try:
                self._size = oriented_size(self.path)[0]
            except InputError as error:
                self._size, self.problem = (0, 0), str(error).removeprefix(f'{self.path}: ')
        return self._size


@dataclass
class Dataset:
    """The dataset that a reader returns.

    Attributes:
        format: Name of the format, for the summary.
        location: The file or folder.
        images: Annotated images by path.
        classes: Class names of the objects, in the order of their labels.
        keypoints: Keypoint names; ``skeleton`` has pairs of their indices, from 0.
        keypoints_by_class: Keypoint names and skeleton of each class that the file gives them for.
        flip_indices: For each keypoint, the index of the one it becomes after a flip, if a file gives it.
        sigmas: Precision of each keypoint's annotations, if a file gives it, as COCO's sigmas.
        seg_map_classes: Class name of each value of the segmentation maps; empty if the dataset names none.
        colors: Value of each colour (R, G, B) of coloured segmentation maps.
        ignore_index: Values of the segmentation maps that are ignored.
        warnings: The problems that were found.
        notes: Messages about choices made while reading.
        missing: Images that are named in annotations but do not exist.
        strict: Whether the dataset is refused if anything is skipped.
        lost: The split of each image (or of the file, if the image is unknown) that lost damaged annotations.
    """

    format: str
    location: Path
    images: dict[Path, AnnotatedImage] = field(default_factory=dict)
    classes: list[str] = field(default_factory=list)
    keypoints: list[str] = field(default_factory=list)
    skeleton: list[tuple[int, int]] = field(default_factory=list)
    keypoints_by_class: dict[str, tuple[list[str], list[tuple[int, int]]]] = field(default_factory=dict)
    flip_indices: list[int] = field(default_factory=list)
    sigmas: list[float] = field(default_factory=list)
    seg_map_classes: dict[int, str] = field(default_factory=dict)
    colors: dict[tuple[int, int, int], int] = field(default_factory=dict)
    ignore_index: set[int] = field(default_factory=set)
    warnings: Problems = field(default_factory=Problems)
    notes: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    strict: bool = False
    lost: dict[str, str] = field(default_factory=dict)
    _known: set[str] = field(default_factory=set, repr=False)  # the classes as a set, for a fast lookup
    _folders: dict[Path, Path] = field(default_factory=dict, repr=False)  # of images, with links resolved

    def __len__(self) -> int:
        return len(self.images)

    def __iter__(self) -> Iterator[AnnotatedImage]:
        return iter(self.images.values())

    def image(self, path: Path, split: str = '') -> AnnotatedImage:
        """Returns the entry of an image file; creates it if new."""
        folder = path.parent
        if folder not in self._folders:  # resolving each path takes a fifth of the time to read COCO
            self._folders[folder] = Path(os.path.realpath(folder))
        named = self._folders[folder] / path.name
        real = Path(os.path.realpath(path)) if os.path.islink(path) else named
        if (image := self.images.get(real)) is None:
            image = self.images[real] = AnnotatedImage(real, split, link=None if real == named else named)
        image.split = image.split or split
        return image

    def warn(self, file: str | Path, what: str, is_left_out: bool = False) -> None:
        """Records a warning."""
        self.warnings.warn(file, what, is_left_out)

    def leave_out(self, file: str | Path, what: str, image: str | Path | None = None, split: str = '') -> None:
        """Records a warning for damaged annotations, which are skipped.

        Args:
            file: The file, and the location in it.
            what: The defect, with the name of the field.
            image: The image that loses the annotations; if None, the file is counted in its place.
            split: The split of the image.
        """
        self.warn(file, what, is_left_out=True)
        self.lost.setdefault(str(file) if image is None else os.path.realpath(image), split)

    @contextmanager
    def reading(self, file: str | Path, image: str | Path | None = None, split: str = '') -> Iterator[None]:
        """Skips one file or one annotation, with a warning, if an exception is raised while it is read.

        Args:
            file, image, split: See :meth:`leave_out`.
        """
        try:
            yield
        except Exception as error:
            self.leave_out(file, fault_of(error), image, split)

    def is_first(self, image: AnnotatedImage, file: str | Path) -> bool:
        """Returns whether an image has no annotations yet; else records a warning for this second annotation file."""
        if image.annotations is not None:
            self.warn(file, f'other annotations of {image.path} were read before', is_left_out=True)
        return image.annotations is None

    def add_class(self, name: str) -> str:
        """Adds a class name if new, and returns it."""
        if name not in self._known:
            self._known.add(name)
            self.classes.append(name)
        return name

    def set_keypoints(self, name: str, keypoints: Sequence[str], skeleton: Sequence[tuple[int, int]] = ()) -> None:
        """Records the keypoints of a class; ``keypoints`` and ``skeleton`` are those of the first class."""
        self.keypoints_by_class[name] = list(keypoints), list(skeleton)
        self.keypoints, self.skeleton = next(iter(self.keypoints_by_class.values()))

    def keypoints_of(self, *names: str) -> tuple[list[str], list[tuple[int, int]]]:
        """Returns the keypoint names and the skeleton that some classes share.

        Raises:
            ArgumentError: The classes have different keypoints; a pose network learns one list.
        """
        common = self.keypoints, self.skeleton
        keypoints = {name: self.keypoints_by_class.get(name, common) for name in names}
        if len({tuple(keypoints) for keypoints, _ in keypoints.values()}) > 1:
            lists = '; '.join(f'{name} has {", ".join(keypoints)}' for name, (keypoints, _) in keypoints.items())
            what = 'a pose network learns one list of keypoints, but the classes have different ones'
            raise ArgumentError('classes', f'{self.location}: {what}: {lists}. Name the classes of one list')
        return next(iter(keypoints.values()), common)

    def annotations(self) -> Iterator[tuple[AnnotatedImage, Annotation]]:
        """Yields every annotation with its image."""
        return ((image, annotation) for image in self.images.values() for annotation in image.annotations or ())

    def labels(self) -> list[str]:
        """Returns the classes of whole images, sorted."""
        return sorted({label for image in self for label in image.labels})

    def tasks(self) -> list[str]:
        """Returns the tasks that the dataset has annotations for."""
        kinds: set[str] = set()
        for member in ('box', 'segmentation', 'keypoints'):  # most objects have no keypoints: a search of all of them
            if member != 'keypoints' or self.keypoints or not kinds:
                has = any(getattr(annotation, member) is not None for _, annotation in self.annotations())
                kinds |= {member} if has else set()
        has = {
            'detection': bool(kinds),
            'instance': 'segmentation' in kinds,
            'semantic': any(image.seg_map for image in self.images.values()),
            'pose': 'keypoints' in kinds and bool(self.keypoints),
            'classification': any(image.labels for image in self.images.values()),
        }
        return [task for task in TASKS if has[task]]

    def labelled(self, task: str) -> list[AnnotatedImage]:
        """Returns the images with annotations for a task, sorted by path.

        Raises:
            InputError: None of them can be used.
        """
        if task == 'classification':
            there = [image for image in self if image.labels]
        else:
            member = 'seg_map' if task == 'semantic' else 'annotations'
            there = [image for image in self if getattr(image, member) is not None]
        there.sort(key=lambda image: image.path)
        if there and all(min(image.size) == 0 or image.problem for image in there):
            first = f'{there[0].path}: {there[0].problem}'
            raise InputError(f'{self.location}: none of {len(there)} images can be used, the first: {first}')
        return there


def held_out_first(splits: Iterable[str]) -> str:
    """Returns the split of an image that is in several: validation before test, test before training."""
    return min(splits, key=_HELD_OUT_FIRST.index)


def assign_splits(images: Sequence[AnnotatedImage]) -> str:
    """Assigns a split to every image if training or validation has none; returns a note on what was done.

    Images are held out by a hash of their names, so that every reading of a dataset holds out the same ones.
    """
    there = {image.split for image in images}
    if not there & {'train', ''}:  # a dataset without training images counts as not split
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


# --- annotations as written for a training ---


@dataclass
class Converted:
    """One task's annotations, as written for a training.

    Attributes:
        task: One of :data:`icconv_mm.datasets.kinds.TASKS`.
        root: The folder that contains all images.
        files: The annotation file of each split; a substitute's where :func:`fill_splits` sets one.
        classes: Class names by label.
        counts: Number of objects of each class; for segmentation maps, shares of the pixels.
        splits: Number of images in each split.
        paths: The images of each split; ``annotations`` has the number of their annotations.
        sizes: Width and height of each image, [n, 2].
        boxes: Width and height of each object as shares of the longer side of its image, [m, 2].
        most: Largest number of objects in an image.
        colors: Colour (R, G, B) of a class, for those that a table of colours names.
        keypoints, skeleton: As in :class:`icconv_mm.app.annotations.dataset.Dataset`.
        flip_pairs: Pairs of keypoints that a flip swaps; None if unknown.
        sigmas: Of each keypoint.
        notes: Messages about choices made in the conversion.
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
    most: int = 0
    colors: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    keypoints: list[str] = field(default_factory=list)
    skeleton: list[tuple[int, int]] = field(default_factory=list)
    flip_pairs: list[tuple[str, str]] | None = None
    sigmas: list[float] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
