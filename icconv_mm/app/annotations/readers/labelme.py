"""Reads the JSON files of LabelMe and X-AnyLabeling, one per image."""

import base64
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from icconv_mm.app.annotations.dataset import AnnotatedImage, Annotation, Dataset
from icconv_mm.app.annotations.images_on_disk import Files, located
from icconv_mm.app.annotations.points import Point, assign_points
from icconv_mm.app.annotations.readers.coco import kind_of_json
from icconv_mm.app.annotations.segmentations import (
    as_segmentation,
    box_of_keypoints,
    fit_to_image,
    mask_of,
    written_size,
)
from icconv_mm.datasets.image_files import opened
from icconv_mm.datasets.reading import DatasetError, as_number, fault_of, read_json
from icconv_mm.errors import short

_CORNERS = 32  # vertices of the polygon that replaces a circle
_RADIUS = 5  # of points, and half the width of lines, in pixels: as in labelme/utils/shape.py of LabelMe 6.3.1


def labelme_sources(files: Files) -> Iterator[tuple]:
    """Yields the JSON files of LabelMe, as one source."""
    shapes = [path for path in files.labels('.json') if kind_of_json(path, files) == 'LabelMe']
    if shapes:
        yield 'LabelMe', files.root, partial(_labelme, shapes, files)


def _labelme(paths: list[Path], files: Files) -> Dataset:
    """Reads LabelMe files: shapes of one label and ``group_id`` are an object; points are keypoints named by label.

    As in X-AnyLabeling's exports, ``difficult`` objects are ignored, and ``difficult`` keypoints are hidden.
    """
    dataset, contents = Dataset('LabelMe', files.root), {}
    for path in paths:
        image = files.beside(path.stem, path.parent)
        with dataset.reading(path, image, files.split_of_folders(path)):
            contents[path] = _content(dataset, read_json(path), path, image)
    points = {shape['label'] for content in contents.values() for _, shape in content.shapes if _is_point(shape)}
    dataset.keypoints = sorted(points)
    for path in sorted(contents, key=lambda path: located(contents[path].image, [path.parent]) is None):
        content, split = contents[path], files.split_of_folders(path)
        with dataset.reading(path, files.beside(path.stem, path.parent), split):
            location = files.image(content.image, path.parent)
            if location is None:
                dataset.missing.append(f'{path}: {content.image}')
                continue
            image = dataset.image(location, split)
            if not dataset.is_first(image, path):
                continue
            annotations = []
            for shapes, keypoints in _grouped(dataset, content.shapes, path):
                where = f'{path}: shapes[{shapes[0][0]}]' if shapes else str(path)
                with dataset.reading(where, image.path, split):
                    size = content.size or image.size
                    annotation = _labelme_annotation(dataset, shapes, keypoints, size, image, where)
                    annotations += [] if annotation is None else [annotation]
            image.annotations = annotations
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
        if (defect := _shape_defect(shape)) is not None:
            dataset.leave_out(f'{path}: shapes[{i}]', defect, image or path)
        else:
            shapes.append((i, shape))
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


def _grouped(
    dataset: Dataset, shapes: Sequence[tuple[int, dict]], path: Path
) -> Iterator[tuple[list[tuple[int, dict]], list[float] | None]]:
    """Yields the shapes of each object, with their indices, and its keypoints; an object may be points alone.

    Shapes of one label and ``group_id`` are an object, as for LabelMe's exporters; points name their object by
    ``group_id``. If all points have the same label, each without a ``group_id`` is an object.
    """
    objects: dict[tuple[str, str], list[tuple[int, dict]]] = {}
    points: dict[str, list[Point]] = {}
    for i, shape in shapes:
        group = shape.get('group_id')
        if _is_point(shape) and (group is not None or len(dataset.keypoints) > 1):
            group_points = points.setdefault('' if group is None else repr(group), [])
            group_points.append(Point(shape['label'], *shape['points'][0], 1 if shape.get('difficult') is True else 2))
        else:
            group_points = f'shape {i}' if group is None else repr(group)
            objects.setdefault((shape['label'], group_points), []).append((i, shape))
    keypoints = dict.fromkeys(objects)
    alone = []
    for key, group_points in assign_points(
        dataset, points, [(group, (name, group)) for name, group in objects], path, 'group_id'
    ):
        if key is None:
            alone.append(([], group_points))
        else:
            keypoints[key] = group_points
    yield from ((group_points, keypoints[key]) for key, group_points in objects.items())
    yield from alone


def _labelme_annotation(
    dataset: Dataset,
    shapes: list[tuple[int, dict]],
    keypoints: list[float] | None,
    size: tuple[int, int],
    image: AnnotatedImage,
    where: str,
) -> Annotation | None:
    """Returns the object of some shapes; a point among them is an object of one keypoint, and a disc."""
    polygons, mask, box, name = [], None, None, 'object'
    for _, shape in shapes:
        given, kind = shape['points'], shape.get('shape_type') or 'polygon'
        if _is_point(shape):
            keypoints = [*map(float, given[0]), 1.0 if shape.get('difficult') is True else 2.0]
        name = shape['label']
        if kind == 'rectangle' and len(given) >= 2:
            (x1, y1), (x2, y2) = np.min(given, 0), np.max(given, 0)
            box = [float(value) for value in (x1, y1, x2 - x1, y2 - y1)]
        elif kind == 'circle' and len(given) == 2:
            (x, y), radius = given[0], float(np.hypot(*np.subtract(*given)))
            turns = np.linspace(0, 2 * np.pi, _CORNERS, endpoint=False)
            polygons.append(np.stack([x + radius * np.cos(turns), y + radius * np.sin(turns)], 1).ravel().tolist())
        elif kind in ('polygon', 'oriented_rectangle', 'rotation') and len(given) >= 3:
            polygons.append([float(value) for point in given for value in point])
        elif kind == 'mask' or (kind in ('line', 'linestrip') and len(given) >= 2) or kind == 'point':
            drawn = _decoded_mask(shape, size) if kind == 'mask' else _drawn(given, size)
            mask = drawn if mask is None else mask | drawn
        elif kind in ('rectangle', 'circle', 'polygon', 'line', 'linestrip'):
            dataset.warn(where, f'a {kind} of {len(given)} points', is_left_out=True)
        else:
            dataset.leave_out(where, f'a shape of the type {kind!r}', image.path, image.split)
    if mask is None and not (polygons or box or keypoints):
        return None
    annotation = Annotation(dataset.add_class(name), box, keypoints=keypoints, location=where)
    annotation.crowd = any(shape.get('difficult') is True for _, shape in shapes)
    annotation.segmentation = as_segmentation(polygons or None, size, dataset, where, image)
    if mask is not None:
        area = 0 if annotation.segmentation is None else mask_of(annotation.segmentation, size)
        annotation.segmentation = as_segmentation(mask | area, size, dataset, where, image)
    if keypoints and not annotation.segmentation:
        annotation.box = annotation.box or box_of_keypoints(keypoints, size)
    return annotation if annotation.box or annotation.segmentation else None


def _drawn(points: list[list[float]], size: tuple[int, int]) -> np.ndarray:
    """Returns the mask [H, W] of a line, ten pixels wide, or of a point, a disc of radius five: as LabelMe exports."""
    image, (x, y) = Image.new('1', size), points[0]
    if len(points) > 1:
        ImageDraw.Draw(image).line([tuple(point) for point in points], fill=1, width=2 * _RADIUS)
    else:
        ImageDraw.Draw(image).ellipse([x - _RADIUS, y - _RADIUS, x + _RADIUS, y + _RADIUS], fill=1)
    return np.asarray(image).astype(np.uint8)


def _decoded_mask(shape: dict, size: tuple[int, int]) -> np.ndarray:
    """Returns a mask [H, W] from the PNG of its part of the image, between two corners that both belong to it.

    Raises:
        DatasetError: The PNG cannot be read, or does not fit the corners or the image.
    """
    if len(shape['points']) != 2 or not isinstance(shape.get('mask'), str):
        raise DatasetError('mask: expected two corners and a PNG in base64')
    (x1, y1), (x2, y2) = ([round(value) for value in point] for point in shape['points'])
    corners = f'the corners ({x1}, {y1}) and ({x2}, {y2})'
    if not (0 <= x1 <= x2 < size[0] and 0 <= y1 <= y2 < size[1]):
        raise DatasetError(f'mask: {corners} are no part of an image of {size[0]} x {size[1]} pixels')
    try:
        with opened(base64.b64decode(shape['mask'], validate=True), ['PNG']) as image:
            if image.size != (x2 - x1 + 1, y2 - y1 + 1):
                raise DatasetError(f'mask: {corners} do not fit its {image.width} x {image.height} pixels')
            part = np.asarray(image.convert('L')) > 0
    except DatasetError:
        raise
    except Exception as error:  # whatever a decoder raises, the mask is damaged
        raise DatasetError(f'mask: cannot be read ({fault_of(error)})') from error
    mask = np.zeros(size[::-1], np.uint8)
    mask[y1 : y2 + 1, x1 : x2 + 1] = part
    return mask
