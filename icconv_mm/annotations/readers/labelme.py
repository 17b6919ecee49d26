"""Reads LabelMe's JSON files, one per image."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from icconv_mm.annotations.dataset import AnnotatedImage, Annotation, Dataset
from icconv_mm.annotations.images_on_disk import Files, located
from icconv_mm.annotations.readers.coco import kind_of_json
from icconv_mm.annotations.reading import DatasetError, as_number, read_json
from icconv_mm.annotations.segmentations import as_segmentation, box_of_keypoints, fit_to_image, written_size
from icconv_mm.errors import short

_CORNERS = 32  # vertices of the polygon that replaces a circle


def labelme_sources(files: Files) -> Iterator[tuple]:
    """Yields the JSON files of LabelMe, as one source."""
    shapes = [path for path in files.labels('.json') if kind_of_json(path, files) == 'LabelMe']
    if shapes:
        yield 'LabelMe', files.root, partial(_labelme, shapes, files)


def _labelme(paths: list[Path], files: Files) -> Dataset:
    """Reads LabelMe files: shapes of one ``group_id`` form one object, whose points are keypoints, named by label."""
    dataset, contents = Dataset('LabelMe', files.root), {}
    for path in paths:
        image = files.beside(path.stem, path.parent)
        with dataset.reading(path, image, files.split_of(path)):
            contents[path] = _content(dataset, read_json(path), path, image)
    points = {shape['label'] for content in contents.values() for _, shape in content.shapes if _is_point(shape)}
    dataset.keypoints = sorted(points)
    for path in sorted(contents, key=lambda path: located(contents[path].image, [path.parent]) is None):
        content, split = contents[path], files.split_of(path)
        with dataset.reading(path, files.beside(path.stem, path.parent), split):
            location = files.image(content.image, path.parent)
            if location is None:
                dataset.missing.append(f'{path}: {content.image}')
                continue
            image = dataset.image(location, split)
            if not dataset.is_first(image, path):
                continue
            annotations = [
                _labelme_annotation(dataset, group, image, f'{path}: shapes[{group[0][0]}]')
                for group in _grouped(dataset, content.shapes, path)
            ]
            image.annotations = [annotation for annotation in annotations if annotation is not None]
            fit_to_image(dataset, image, content.size, path)
    dataset.classes.sort()
    return dataset


class _Content(NamedTuple):
    """Content of a LabelMe file: image path, image size, and shapes with their indices."""

    image: str
    size: tuple[int, int] | None
    shapes: list[tuple[int, dict]]


def _content(dataset: Dataset, content: Any, path: Path, image: Path | None) -> _Content:
    """Returns the content of a LabelMe file; invalid shapes are skipped with a warning.

    Raises:
        DatasetError: The file has another format.
    """
    if not isinstance(content, dict) or not isinstance(content.get('shapes') or [], list):
        shapes = content.get('shapes') if isinstance(content, dict) else content
        raise DatasetError(f'"shapes" is {short(shapes)}, expected a list')
    image_path = content.get('imagePath') or f'{path.stem}.jpg'
    if not isinstance(image_path, str):
        raise DatasetError(f'"imagePath" is {short(image_path)}, expected the name of a file')
    size = written_size(content.get('imageWidth'), content.get('imageHeight'), ('"imageWidth"', '"imageHeight"'))
    shapes = []
    for i, shape in enumerate(content.get('shapes') or ()):
        if (defect := _shape_defect(shape)) is None:
            shapes.append((i, shape))
        else:
            dataset.leave_out(f'{path}: shapes[{i}]', defect, image or path)
    return _Content(image_path, size, shapes)


def _shape_defect(shape: Any) -> str | None:
    if not isinstance(shape, dict):
        return f'is {short(shape)}, expected an object'
    label, points = shape.get('label'), shape.get('points')
    if not (isinstance(label, str) and label.strip()):
        return f'"label" is {short(label)}, expected the name of a class'
    if not (isinstance(points, list) and all(isinstance(point, list) and len(point) == 2 for point in points)):
        return f'"points" is {short(points)}, expected [[x, y], ...]'
    for field, kinds in (('shape_type', str), ('group_id', (int, str))):
        if shape.get(field) is not None and not isinstance(shape[field], kinds):
            return f'"{field}" is {short(shape[field])}'
    try:
        for x, y in points:
            as_number(x, '"points"'), as_number(y, '"points"')
    except DatasetError as error:
        return str(error)
    return None


def _is_point(shape: dict) -> bool:
    return shape.get('shape_type') == 'point' and bool(shape['points'])


def _grouped(dataset: Dataset, shapes: Sequence[tuple[int, dict]], path: Path) -> list[list[tuple[int, dict]]]:
    """Groups the shapes, with their indices, by object.

    Points without a ``group_id`` belong to the image's only object, or form one. If all points have the same label,
    each is an object of its own.
    """
    groups: dict[str, list[tuple[int, dict]]] = {}
    points = []
    for i, shape in shapes:
        group = shape.get('group_id')
        if group is None and shape.get('shape_type') == 'point' and len(dataset.keypoints) > 1:
            points.append((i, shape))
        else:
            groups.setdefault(f'shape {i}' if group is None else repr(group), []).append((i, shape))
    made = list(groups.values())
    if len(made) > 1 or len({shape.get('label') for _, shape in points}) < len(points):
        for i, _ in points:
            dataset.warn(f'{path}: shapes[{i}]', 'a point without a group_id, which says whose it is: left out')
    elif points:
        made = [[*(made[0] if made else ()), *points]]
    return made


def _labelme_annotation(
    dataset: Dataset, group: list[tuple[int, dict]], image: AnnotatedImage, where: str
) -> Annotation | None:
    size = image.size
    segmentations, box, points, name = [], None, {}, ''
    for _, shape in group:
        given, kind = shape['points'], shape.get('shape_type') or 'polygon'
        if _is_point(shape):
            points[shape['label']] = given[0]
            continue
        name = shape['label']
        if kind == 'rectangle' and len(given) >= 2:
            (x1, y1), (x2, y2) = np.min(given, 0), np.max(given, 0)
            box = [float(value) for value in (x1, y1, x2 - x1, y2 - y1)]
        elif kind == 'circle' and len(given) == 2:
            (x, y), radius = given[0], float(np.hypot(*np.subtract(*given)))
            turns = np.linspace(0, 2 * np.pi, _CORNERS, endpoint=False)
            segmentations.append(np.stack([x + radius * np.cos(turns), y + radius * np.sin(turns)], 1).ravel().tolist())
        elif kind == 'polygon' and len(given) >= 3:
            segmentations.append([float(value) for point in given for value in point])
        else:
            dataset.warn(where, f'a {kind} of {len(given)} points: left out')
    if not (segmentations or box or points):
        return None
    annotation = Annotation(dataset.add_class(name or 'object'), box, location=where)
    annotation.segmentation = as_segmentation(segmentations or None, size, dataset, where, image)
    if points:
        triples = [(*points[part], 2) if part in points else (0, 0, 0) for part in dataset.keypoints]
        annotation.keypoints = [float(value) for triple in triples for value in triple]
        annotation.box = annotation.box or (
            None if annotation.segmentation else box_of_keypoints(annotation.keypoints, size)
        )
    return annotation if annotation.box or annotation.segmentation else None
