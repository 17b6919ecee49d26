"""Reads DeepLabCut's CSV files."""

import csv
from collections import Counter
from collections.abc import Iterator
from functools import partial
from itertools import compress
from pathlib import Path

import numpy as np

from icconv_mm.app.annotations.dataset import Annotation, Dataset
from icconv_mm.app.annotations.images_on_disk import Files, as_path, split_of
from icconv_mm.app.annotations.readers.yolo import yaml_of
from icconv_mm.app.annotations.segmentations import box_of_keypoints
from icconv_mm.datasets.reading import DatasetError, head, read_text
from icconv_mm.errors import short

_HEAD = ('scorer', 'individuals', 'bodyparts', 'coords')
_UNIQUE = 'single'  # DeepLabCut's name for the individual that owns the body parts of no animal
_BODY_PARTS = ('bodyparts', 'multianimalbodyparts')  # keys of DeepLabCut's config.yaml


def deeplabcut_sources(files: Files) -> Iterator[tuple]:
    """Yields the CSV files that begin with ``scorer``, as one source."""
    tables = [path for path in files.labels('.csv') if head(path).lstrip('\ufeff').startswith('scorer')]
    if tables:
        yield 'DeepLabCut', files.root, partial(_deeplabcut, tables, files)


def _deeplabcut(tables: list[Path], files: Files) -> Dataset:
    """Reads a row per frame, with x and y of each body part; several animals if there is a row ``individuals``."""
    dataset = Dataset('DeepLabCut', files.root)
    dataset.add_class('animal')
    links: list = []
    for path in files.ending('config.yaml'):
        content = yaml_of(path, files, *_BODY_PARTS)
        if any(key in content for key in _BODY_PARTS):
            links = content.get('skeleton') or []
    for path in sorted(tables, key=lambda path: not files.has_images(path.parent)):  # others may refer to any folder
        rows: list[list[str]] = []
        with dataset.reading(path, split=files.split_of_folders(path)):
            rows = list(csv.reader(read_text(path).lstrip('\ufeff').splitlines()))
            head, first = _head_of(rows)
        if not rows or str(path) in dataset.lost:
            continue
        owners = head.get('individuals', [''] * len(head['coords']))[first:]
        columns = list(zip(owners, head['bodyparts'][first:], head['coords'][first:]))
        unique = {part for owner, part, _ in columns if owner == _UNIQUE}
        is_animal = [owner != _UNIQUE for owner in owners]
        if unique and any(is_animal):
            dataset.warn(
                path, f'{", ".join(sorted(unique))}: body parts of no animal (individual {_UNIQUE!r}): not learned'
            )
        else:
            is_animal = [True] * len(columns)
        names = list(dict.fromkeys(part for (_, part, _), kept in zip(columns, is_animal) if kept))
        if dataset.keypoints and dataset.keypoints != names:
            raise DatasetError(f'{path}: body parts {short(names)}, in the files before it {short(dataset.keypoints)}')
        dataset.keypoints = names
        frames = ['/'.join(filter(None, row[:first])) for row in rows]
        locations = files.images(frames[len(head) :], path.parent, path.parent.parent.parent)
        for line, row in enumerate(rows[len(head) :], len(head) + 1):
            where = f'{path}: line {line}'
            with dataset.reading(where, locations.get(frames[line - 1])):
                _read_frame(
                    dataset, where, frames[line - 1], locations, dict(compress(zip(columns, row[first:]), is_animal))
                )
    numbers = {part: i for i, part in enumerate(dataset.keypoints)}
    is_list = isinstance(links, list) and all(isinstance(link, list) and len(link) == 2 for link in links)
    if not is_list:
        dataset.warn(files.root, f'skeleton of config.yaml is {short(links)}, expected pairs of body parts: not used')
    named = [tuple(numbers.get(str(part), -1) for part in link) for link in (links if is_list else ())]
    dataset.skeleton = [link for link in named if -1 not in link]
    return dataset


def _head_of(rows: list[list[str]]) -> tuple[dict[str, list[str]], int]:
    """Returns the header rows by their first word, and the column of the first coordinate.

    Raises:
        DatasetError: The header rows are missing.
    """
    head = {row[0]: row for row in rows[:4] if row and row[0] in _HEAD}
    if not {'bodyparts', 'coords'} <= head.keys():
        raise DatasetError('not DeepLabCut: no rows "bodyparts" and "coords" at the top')
    first = [i for i, word in enumerate(head['coords']) if word in ('x', 'y')]
    if not first:
        raise DatasetError('not DeepLabCut: no column x or y in the row "coords"')
    columns = Counter(zip(*(head[word][first[0] :] for word in _HEAD[1:] if word in head)))
    if twice := next((' '.join(column) for column, count in columns.items() if count > 1), None):
        raise DatasetError(f'two columns are called {short(twice)}')
    return head, first[0]


def _read_frame(dataset: Dataset, where: str, frame: str, locations: dict[str, Path], values: dict) -> None:
    """Adds the animals of a row: ``values`` has the text by individual, body part and coordinate."""
    if (location := locations.get(frame)) is None:
        dataset.missing.append(f'{where}: {frame}')
        return
    animals = {
        owner: points
        for owner in dict.fromkeys(owner for owner, _, _ in values)
        if any(points := [value for part in dataset.keypoints for value in _point(values, owner, part)])
    }
    if not animals:
        dataset.warn(where, 'no body part is annotated', is_left_out=True)
        return
    image = dataset.image(location, split_of(as_path(frame).parent))
    if not dataset.is_first(image, where):
        return
    image.annotations = []
    for owner, points in animals.items():
        box, visible_points = box_of_keypoints(points, image.size), f'{where}{f", {owner}" if owner else ""}'
        image.annotations.append(Annotation(dataset.classes[0], box, keypoints=points, location=visible_points))


def _point(values: dict, owner: str, part: str) -> tuple[float, float, int]:
    """Returns x, y and 2 of a body part; zeros if unlabelled. Pixel centres are whole numbers, as in COCO."""
    try:
        x, y = (float(values[owner, part, axis]) for axis in ('x', 'y'))
    except (KeyError, ValueError):
        return 0, 0, 0
    return (x, y, 2) if np.isfinite([x, y]).all() else (0, 0, 0)
