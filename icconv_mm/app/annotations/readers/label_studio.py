"""Reads Label Studio's own JSON: boxes, rotated ones, polygons, ellipses, brushes, keypoints and choices."""

import re
from collections.abc import Collection, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np

from icconv_mm.app.annotations.brush import decode_brush
from icconv_mm.app.annotations.dataset import AnnotatedImage, Annotation, Dataset
from icconv_mm.app.annotations.images_on_disk import Files
from icconv_mm.app.annotations.points import Point, assign_points
from icconv_mm.app.annotations.readers.coco import kind_of_json
from icconv_mm.app.annotations.segmentations import as_segmentation, box_of_keypoints, fit_to_image, written_size
from icconv_mm.datasets.reading import DatasetError, as_number, read_json
from icconv_mm.errors import short

_CORNERS = 32  # vertices of the polygon that replaces an ellipse
_UPLOADED = re.compile(r'[0-9a-f]{8}-')  # Label Studio's prefix of the names of uploaded files


def label_studio_sources(files: Files) -> Iterator[tuple]:
    """Yields the JSON files of Label Studio's tasks."""
    for path in files.labels('.json'):
        if kind_of_json(path, files) == 'Label Studio':
            yield 'Label Studio', path, partial(_tasks, path, files)


def _tasks(path: Path, files: Files) -> Dataset:
    """Reads the annotation of each task: the ground truth, else the latest that was not cancelled."""
    dataset, content = Dataset('Label Studio', path), read_json(path)
    tasks = content if isinstance(content, list) else [content]
    chosen: list[tuple[str, Path, list[dict]]] = []
    read: list[tuple[str, str, list[dict] | None]] = []
    for i, task in enumerate(tasks):
        where = f'{path}: [{i}]'
        with dataset.reading(where):
            read.append((where, _reference(task), _counted_results(dataset, task, where)))
    locations = _locations([name for _, name, _ in read], path, files)
    for where, name, results in read:
        if name not in locations:
            dataset.missing.append(f'{where}: {name}')
        elif results is not None:
            chosen.append((where, locations[name], results))
    if not chosen and any(isinstance(task, dict) and task.get('predictions') for task in tasks):
        dataset.warn(path, 'its tasks have predictions, and no annotation yet')
    points = {_label(result) for *_, results in chosen for result in results if _kind(result) == 'keypoint'}
    dataset.keypoints = sorted(points)
    for where, location, results in chosen:
        split = files.split_of_folders(location)
        with dataset.reading(where, location, split):
            image = dataset.image(location, split)
            if dataset.is_first(image, where):
                _read_results(dataset, image, results, where, path)
    dataset.classes.sort()
    return dataset


def _locations(names: Sequence[str], path: Path, files: Files) -> dict[str, Path]:
    """Returns the image of each name, which Label Studio may have uploaded under a prefix."""
    near = path.parent, path.parent / 'images'
    paths = files.images(names, *near)
    uploaded = {name: _UPLOADED.sub('', name, 1) for name in names if name not in paths}
    plain = files.images(uploaded.values(), *near)
    return paths | {name: plain[path] for name, path in uploaded.items() if path in plain}


def _reference(task: Any) -> str:
    """Returns the path of a task's image, without server, storage and query.

    Raises:
        DatasetError: The task has none.
    """
    data = task.get('data') if isinstance(task, dict) else None
    given = [value for value in data.values() if isinstance(value, str)] if isinstance(data, dict) else []
    if not given:
        raise DatasetError(f'"data" is {short(data)}, expected the location of an image')
    location = urlsplit(data.get('image') if isinstance(data.get('image'), str) else given[0])
    return parse_qs(location.query).get('d', [unquote(location.path)])[0]


def _counted_results(dataset: Dataset, task: dict, where: str) -> list[dict] | None:
    """Returns the regions of the annotation that counts; None if the task has none.

    Raises:
        DatasetError: The task is not in Label Studio's form.
    """
    given = task.get('annotations') or []  # of tasks that nobody has annotated yet
    if not (isinstance(given, list) and all(isinstance(result, dict) for result in given)):
        raise DatasetError(f'"annotations" is {short(given)}, expected a list')
    done = [result for result in given if not result.get('was_cancelled')]
    if not done:
        return None
    done.sort(
        key=lambda result: (bool(result.get('ground_truth')), str(result.get('updated_at') or result.get('created_at')))
    )
    if len(done) > 1:
        which = 'the ground truth' if done[-1].get('ground_truth') else 'the latest'
        dataset.warn(where, f'has {len(done)} annotations: {which} is taken')
    results = done[-1].get('result')
    if not (isinstance(results, list) and all(isinstance(result, dict) for result in results)):
        raise DatasetError(f'"result" is {short(results)}, expected a list')
    return [result for result in results if isinstance(result.get('value'), dict)]


def _kind(result: dict) -> str:
    """Returns the kind of a region: ``'rectangle'``, ``'polygon'``, ``'keypoint'``, ``'choices'``, ..."""
    return str(result.get('type', '')).removesuffix('labels')


def _label(result: dict) -> str:
    """Returns the label of a region.

    Raises:
        DatasetError: It has none, or several.
    """
    labels = result['value'].get(f'{_kind(result)}labels') or result['value'].get('labels')
    if not (isinstance(labels, list) and len(labels) == 1 and isinstance(labels[0], str) and labels[0].strip()):
        raise DatasetError(f'a {_kind(result)} has the labels {short(labels)}, expected one')
    return labels[0]


def _read_results(dataset: Dataset, image: AnnotatedImage, results: list[dict], where: str, path: Path) -> None:
    """Adds the objects of an image; keypoints name their parent region, where they have one.

    Raises:
        DatasetError: The image has only keypoints of which nothing says whose they are.
    """
    pairs: list[tuple[str, Annotation]] = []
    points: dict[str, list[Point]] = {}
    written = None
    of_objects = {str(result.get('id')) for result in results if _kind(result) != 'choices'}
    for k, result in enumerate(results):
        kind, location = _kind(result), f'{where}: result[{k}]'
        with dataset.reading(location, image.path, image.split):
            if kind == 'choices':
                _read_choices(image, result, of_objects)
                continue
            if kind not in ('rectangle', 'polygon', 'ellipse', 'brush', 'keypoint'):
                dataset.warn(location, f'is of the type {short(result.get("type"))}: not read')
                continue
            if rotation := as_number(result.get('image_rotation') or 0, 'image_rotation') % 360:
                raise DatasetError(
                    f'was drawn on the image rotated by {rotation:g} degrees: rotate it back in Label Studio'
                )
            size = written_size(result.get('original_width'), result.get('original_height'), ('width', 'height'))
            written = size or written
            if kind == 'keypoint':
                (point,) = _scaled([[result['value'].get('x'), result['value'].get('y')]], size or image.size)
                points.setdefault(str(result.get('parentID') or ''), []).append(Point(_label(result), *point.tolist()))
                continue
            annotation = _annotation_of(dataset, result, size or image.size, image, location)
            if annotation is not None:
                pairs.append((str(result.get('id')), annotation))
    annotations = [annotation for _, annotation in pairs]
    for annotation, keypoints in assign_points(dataset, points, pairs, where, 'parent region'):
        if annotation is None:
            box = box_of_keypoints(keypoints, written or image.size)
            annotations.append(Annotation(dataset.add_class('object'), box, keypoints=keypoints, location=where))
        else:
            annotation.keypoints = keypoints
    image.annotations = annotations
    fit_to_image(dataset, image, written, path)


def _read_choices(image: AnnotatedImage, result: dict, of_objects: Collection[str]) -> None:
    """Adds the choices of an image; those of a region have its id and its coordinates, and say nothing of the image.

    Raises:
        DatasetError: They are no list of names.
    """
    value, choices = result['value'], result['value'].get('choices')
    if not (isinstance(choices, list) and all(isinstance(choice, str) for choice in choices)):
        raise DatasetError(f'"choices" is {short(choices)}, expected a list of names')
    if value.keys() <= {'choices'} and str(result.get('id')) not in of_objects and not result.get('parentID'):
        image.labels += choices


def _annotation_of(
    dataset: Dataset, result: dict, size: tuple[int, int], image: AnnotatedImage, where: str
) -> Annotation | None:
    value, kind = result['value'], _kind(result)
    annotation = Annotation(dataset.add_class(_label(result)), location=where)
    if kind == 'brush':
        annotation.segmentation = as_segmentation(
            decode_brush(value.get('rle') or (), size), size, dataset, where, image
        )
        return annotation if annotation.segmentation else None
    if kind == 'polygon':
        points = _scaled(value.get('points'), size)
    elif kind == 'ellipse':
        turns = np.linspace(0, 2 * np.pi, _CORNERS, endpoint=False)
        radii = [as_number(value.get(key), key) for key in ('radiusX', 'radiusY')]
        circle = np.stack([np.cos(turns) * radii[0], np.sin(turns) * radii[1]], 1)
        points = _rotated(_scaled(circle + [as_number(value.get(key), key) for key in 'xy'], size), value, size)
    else:
        x, y, w, h = (as_number(value.get(key), key) for key in ('x', 'y', 'width', 'height'))
        points = _scaled([[x, y], [x + w, y], [x + w, y + h], [x, y + h]], size)
        if not value.get('rotation'):
            annotation.box = [float(corner) for corner in (*points[0], *(points[2] - points[0]))]
            return annotation
        points = _rotated(points, value, size)
    annotation.segmentation = as_segmentation([points.ravel().tolist()], size, dataset, where, image)
    return annotation if annotation.segmentation else None


def _scaled(points: Any, size: tuple[int, int]) -> np.ndarray:
    """Returns points [n, 2] in pixels from shares of the image in percent.

    Raises:
        DatasetError: They are no points.
    """
    try:
        scaled = np.array(points, dtype=float)
        for value in scaled.ravel().tolist():
            as_number(value, 'points')
    except (TypeError, ValueError) as error:
        raise DatasetError(f'points are {short(points)}, expected [[x, y], ...]') from error
    if scaled.ndim != 2 or scaled.shape[1] != 2:
        raise DatasetError(f'points are {short(points)}, expected [[x, y], ...]')
    return scaled * size / 100


def _rotated(points: np.ndarray, value: dict, size: tuple[int, int]) -> np.ndarray:
    """Returns points [n, 2] rotated clockwise about the region's x and y, in pixels."""
    turn = np.deg2rad(as_number(value.get('rotation') or 0, 'rotation'))
    around = _scaled([[value['x'], value['y']]], size)
    matrix = [[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]]
    return (points - around) @ matrix + around
