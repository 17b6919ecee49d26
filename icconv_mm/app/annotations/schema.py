"""Checks what a reader returns, once for all formats: names, paths, boxes, keypoints, scores and splits."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from icconv_mm.app.annotations.dataset import SPLITS, AnnotatedImage, Annotation, Dataset
from icconv_mm.datasets import limits
from icconv_mm.datasets.checks import NUMBERS
from icconv_mm.datasets.reading import DatasetError
from icconv_mm.datasets.seg_maps import LARGEST
from icconv_mm.errors import check_names, is_unprintable, short

_AT_ONCE = 1000  # images that are checked together


def check_dataset(dataset: Dataset) -> None:
    """Checks a dataset before anything is made of it; annotations and images with a defect are left out.

    Args:
        dataset: What a reader returned; it records a warning for each defect of an annotation, and the problem of an
            image.

    Raises:
        DatasetError: A class or a keypoint has a name that files of annotations cannot hold, or there are too many.
    """
    _check_names(dataset)
    if strange := {image.split for image in dataset} - {*SPLITS, ''}:
        raise DatasetError(f'{dataset.location}: the split {short(strange.pop())} is none of {", ".join(SPLITS)}')
    counts = {name: 3 * len(dataset.keypoints_by_class.get(name, (dataset.keypoints,))[0]) for name in dataset.classes}
    images = list(dataset)
    for start in range(0, len(images), _AT_ONCE):
        _check_images(dataset, images[start : start + _AT_ONCE], counts)
    _check_unit(dataset.location, [annotation for image in images for annotation in image.annotations or ()])


def _check_unit(where: Path, annotations: Sequence[Annotation]) -> None:
    """Raises DatasetError if all boxes, keypoints or polygons lie in the first pixel: they are shares of the sides."""
    for kind, ends in (('boxes', _ends_of_box), ('keypoints', _points), ('polygons', _ends_of_polygons)):
        values = chain.from_iterable(map(ends, annotations))
        first = next(values, None)
        if first is not None and first <= 1 and all(value <= 1 for value in values):
            raise DatasetError(f"{where}: all {kind} lie between 0 and 1: multiply them by the images' sides in pixels")


def _ends_of_box(annotation: Annotation) -> Sequence[float]:
    left, top, width, height = annotation.box or (0, 0, 0, 0)
    return (left + width, top + height) if width > 0 and height > 0 else ()


def _points(annotation: Annotation) -> Iterator[float]:
    """Yields the coordinates of the labelled keypoints."""
    numbers = annotation.keypoints or ()
    for place in range(0, len(numbers), 3):
        yield from numbers[place : place + 2] if numbers[place + 2] > 0 else ()


def _ends_of_polygons(annotation: Annotation) -> list[float]:
    return [max(polygon) for polygon in annotation.segmentation] if isinstance(annotation.segmentation, list) else []


def _check_images(dataset: Dataset, images: Sequence[AnnotatedImage], counts: dict[str, int]) -> None:
    """Checks images together, and only those with a defect one by one."""
    if not ''.join(map(_paths, images)).isprintable():
        for image in images:
            if is_unprintable(_paths(image)):  # split files have one line per image
                image.problem = 'its path has a control character, or is not UTF-8'
    annotated = [image for image in images if image.annotations]
    if not _are_sound([annotation for image in annotated for annotation in image.annotations], counts):
        for image in annotated:
            image.annotations = list(_sound(dataset, image, counts))


def _paths(image: AnnotatedImage) -> str:
    return str(image.path) if image.link is image.seg_map is None else f'{image.path}{image.link}{image.seg_map}'


def _check_names(dataset: Dataset) -> None:
    where = dataset.location
    points = [('keypoint', names) for names, _ in dataset.keypoints_by_class.values()] + [
        ('keypoint', dataset.keypoints)
    ]
    values = dataset.seg_map_classes
    for kind, names in [('class', dataset.classes), ('class', values.values()), ('class', dataset.labels()), *points]:
        if other := next((name for name in names if not (isinstance(name, str) and name.strip())), None):
            raise DatasetError(f'{where}: the {kind} {short(other)} is no name: rename it')
        check_names(names, f'{where}: the {kind}')
    for _, names in points:
        if len(names) > limits.KEYPOINTS:
            raise DatasetError(f'{where}: {len(names)} keypoints, of which at most {limits.KEYPOINTS} are read')
        if twice := next((name for name, count in Counter(names).items() if count > 1), None):
            raise DatasetError(f'{where}: two keypoints are called {twice!r}: rename one')
    for value in (*values, *dataset.colors.values()):
        if not (isinstance(value, int) and 0 <= value <= LARGEST):
            raise DatasetError(f'{where}: {short(value)} is no value of a segmentation map, 0 to {LARGEST}')


def _are_sound(annotations: Sequence[Annotation], counts: dict[str, int]) -> bool:
    """Returns whether annotations are valid; all numbers at once, as one by one takes five times as long."""
    boxes = [annotation.box for annotation in annotations if annotation.box is not None]
    points = [annotation.keypoints for annotation in annotations if annotation.keypoints is not None]
    scores = [annotation.score for annotation in annotations if annotation.score is not None]
    try:
        numbers = [*chain(*boxes, *points), *scores]
        return (
            NUMBERS.issuperset(map(type, numbers))
            and math.isfinite(sum(map(abs, numbers)))
            and {4}.issuperset(map(len, boxes))
            and (not scores or (min(scores) >= 0 and max(scores) <= 1))
            and counts.keys() >= {annotation.name for annotation in annotations}
            and all(
                len(annotation.keypoints) == counts[annotation.name]
                for annotation in annotations
                if annotation.keypoints is not None
            )
        )
    except (TypeError, OverflowError):
        return False


def _sound(dataset: Dataset, image: AnnotatedImage, counts: dict[str, int]) -> Iterator[Annotation]:
    for annotation in image.annotations:
        if defect := _annotation_defect(annotation, counts):
            where = annotation.location or image.path
            dataset.leave_out(where, f'{short(annotation.name)}: {defect}', image.path, image.split)
        else:
            yield annotation


def _annotation_defect(annotation: Annotation, counts: dict[str, int]) -> str:
    """Returns the defect of an annotation; '' if it is valid."""
    if annotation.name not in counts:
        return 'is no class of the dataset'
    if annotation.box is not None and not (_are_numbers(annotation.box) and len(annotation.box) == 4):
        return f'the box is {short(annotation.box)}, expected four finite numbers'
    count = counts[annotation.name]
    if annotation.keypoints is not None and not (
        _are_numbers(annotation.keypoints) and len(annotation.keypoints) == count
    ):
        return f'the keypoints are {short(annotation.keypoints)}, expected {count} finite numbers'
    if annotation.score is not None and not (_are_numbers([annotation.score]) and 0 <= annotation.score <= 1):
        return f'the score is {short(annotation.score)}, expected 0 to 1'
    return ''


def _are_numbers(values: Any) -> bool:
    if not isinstance(values, Iterable) or isinstance(values, str):
        return False
    return all(isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e9 for value in values)
