"""LabelMe's JSON per image."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from icconv_mm.annotations.dataset import Found, Picture, Thing
from icconv_mm.annotations.images_on_disk import Files, located
from icconv_mm.annotations.polygons import box_of_keypoints, fit_to_picture, outline_of, written_size
from icconv_mm.annotations.readers.coco import kind_of_json
from icconv_mm.annotations.reading import DatasetError, number, read_json
from icconv_mm.errors import short

_CORNERS = 32  # of a polygon in the place of a circle


def labelme_sources(files: Files) -> Iterator[tuple]:
    """JSON files of LabelMe."""
    shapes = [path for path in files.labels('.json') if kind_of_json(path, files) == 'LabelMe']
    if shapes:
        yield 'LabelMe', files.root, partial(_labelme, shapes, files)


def _labelme(paths: list[Path], files: Files) -> Found:
    """Shapes of one ``group_id`` are one thing; points of it are its keypoints, by their labels."""
    found, contents = Found('LabelMe', files.root), {}
    for path in paths:
        picture = files.beside(path.stem, path.parent)
        with found.reading(path, picture, files.split_of(path)):
            contents[path] = _content(found, read_json(path), path, picture)
    points = {shape['label'] for content in contents.values() for _, shape in content.shapes if _is_point(shape)}
    found.keypoints = sorted(points)
    for path in sorted(contents, key=lambda path: located(contents[path].image, [path.parent]) is None):
        content, split = contents[path], files.split_of(path)
        with found.reading(path, files.beside(path.stem, path.parent), split):
            place = files.image(content.image, path.parent)
            if place is None:
                found.missing.append(f'{path}: {content.image}')
                continue
            picture = found.picture(place, split)
            if not found.is_first(picture, path):
                continue
            things = [
                _labelme_thing(found, group, picture, f'{path}: shapes[{group[0][0]}]')
                for group in _grouped(found, content.shapes, path)
            ]
            picture.things = [thing for thing in things if thing is not None]
            fit_to_picture(found, picture, content.size, path)
    found.classes.sort()
    return found


class _Content(NamedTuple):
    """What a file of LabelMe holds: the shapes with their numbers."""

    image: str
    size: tuple[int, int] | None
    shapes: list[tuple[int, dict]]


def _content(found: Found, content: Any, path: Path, picture: Path | None) -> _Content:
    """What a file of LabelMe holds; shapes that cannot be used are taken down.

    Raises:
        DatasetError: It is not of that format.
    """
    if not isinstance(content, dict) or not isinstance(content.get('shapes') or [], list):
        shapes = content.get('shapes') if isinstance(content, dict) else content
        raise DatasetError(f'"shapes" is {short(shapes)}, expected a list')
    image = content.get('imagePath') or f'{path.stem}.jpg'
    if not isinstance(image, str):
        raise DatasetError(f'"imagePath" is {short(image)}, expected the name of a file')
    size = written_size(content.get('imageWidth'), content.get('imageHeight'), ('"imageWidth"', '"imageHeight"'))
    shapes = []
    for i, shape in enumerate(content.get('shapes') or ()):
        if (defect := _shape_defect(shape)) is None:
            shapes.append((i, shape))
        else:
            found.leave_out(f'{path}: shapes[{i}]', defect, picture or path)
    return _Content(image, size, shapes)


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
            number(x, '"points"'), number(y, '"points"')
    except DatasetError as error:
        return str(error)
    return None


def _is_point(shape: dict) -> bool:
    return shape.get('shape_type') == 'point' and bool(shape['points'])


def _grouped(found: Found, shapes: Sequence[tuple[int, dict]], path: Path) -> list[list[tuple[int, dict]]]:
    """The shapes of each thing with their numbers.

    Points without a ``group_id`` are of the only thing there is, or are one. Where all points are called alike, each is
    a thing.
    """
    groups: dict[str, list[tuple[int, dict]]] = {}
    points = []
    for i, shape in shapes:
        group = shape.get('group_id')
        if group is None and shape.get('shape_type') == 'point' and len(found.keypoints) > 1:
            points.append((i, shape))
        else:
            groups.setdefault(f'shape {i}' if group is None else repr(group), []).append((i, shape))
    made = list(groups.values())
    if len(made) > 1 or len({shape.get('label') for _, shape in points}) < len(points):
        for i, _ in points:
            found.wrong(f'{path}: shapes[{i}]', 'a point without a group_id, which says whose it is: left out')
    elif points:
        made = [[*(made[0] if made else ()), *points]]
    return made


def _labelme_thing(found: Found, group: list[tuple[int, dict]], picture: Picture, where: str) -> Thing | None:
    size = picture.size
    outlines, box, points, name = [], None, {}, ''
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
            outlines.append(np.stack([x + radius * np.cos(turns), y + radius * np.sin(turns)], 1).ravel().tolist())
        elif kind == 'polygon' and len(given) >= 3:
            outlines.append([float(value) for point in given for value in point])
        else:
            found.wrong(where, f'a {kind} of {len(given)} points: left out')
    if not (outlines or box or points):
        return None
    thing = Thing(found.add_class(name or 'object'), box, place=where)
    thing.outline = outline_of(outlines or None, size, found, where, picture)
    if points:
        triples = [(*points[part], 2) if part in points else (0, 0, 0) for part in found.keypoints]
        thing.keypoints = [float(value) for triple in triples for value in triple]
        thing.box = thing.box or (None if thing.outline else box_of_keypoints(thing.keypoints, size))
    return thing if thing.box or thing.outline else None
