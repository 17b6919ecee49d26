"""DeepLabCut's CSV files, LabelMe's JSON per picture, and folders that are named as classes."""

import csv
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from icconv_mm.data.found import IMAGE_SUFFIXES, Files, Found, Picture, Thing, as_path, located, split_of
from icconv_mm.data.outlines import box_of_keypoints, fit_to_picture, outline_of, written_size
from icconv_mm.data.readers.coco import kind_of_json
from icconv_mm.data.readers.yolo import yaml_of
from icconv_mm.data.reading import DatasetError, head, number, read_json, read_text
from icconv_mm.errors import short

_HEAD = ('scorer', 'individuals', 'bodyparts', 'coords')
_BODY_PARTS = ('bodyparts', 'multianimalbodyparts')  # of DeepLabCut's config.yaml
_CORNERS = 32  # of a polygon in the place of a circle


def sources(files: Files) -> Iterator[tuple]:
    """CSV files that begin with ``scorer``; JSON files of LabelMe. Folders of classes are :func:`class_folders`."""
    tables = [path for path in files.labels('.csv') if head(path).lstrip('\ufeff').startswith('scorer')]
    if tables:
        yield 'DeepLabCut', files.root, partial(_deeplabcut, tables, files)
    shapes = [path for path in files.labels('.json') if kind_of_json(path, files) == 'LabelMe']
    if shapes:
        yield 'LabelMe', files.root, partial(_labelme, shapes, files)


# --- DeepLabCut ---


def _deeplabcut(tables: list[Path], files: Files) -> Found:
    """A row for each frame, x and y of each body part; several animals where there is a row ``individuals``."""
    found = Found('DeepLabCut', files.root)
    found.add_class('animal')
    links: list = []
    for path in files.ending('config.yaml'):
        content = yaml_of(path, files, *_BODY_PARTS)
        if any(key in content for key in _BODY_PARTS):
            links = content.get('skeleton') or []
    for path in sorted(tables, key=lambda path: not _has_images(path.parent, files)):  # others may lead anywhere
        rows: list[list[str]] = []
        with found.reading(path, split=files.split_of(path)):
            rows = list(csv.reader(read_text(path).lstrip('\ufeff').splitlines()))
            head, first = _head_of(rows)
        if not rows or str(path) in found.lost:
            continue
        names = list(dict.fromkeys(head['bodyparts'][first:]))
        if found.keypoints and found.keypoints != names:
            raise DatasetError(f'{path}: body parts {short(names)}, in the files before it {short(found.keypoints)}')
        found.keypoints = names
        owners = head.get('individuals', [''] * len(head['coords']))[first:]
        columns = list(zip(owners, head['bodyparts'][first:], head['coords'][first:]))
        frames = ['/'.join(filter(None, row[:first])) for row in rows]
        places = files.images(frames[len(head) :], path.parent, path.parent.parent.parent)
        for line, row in enumerate(rows[len(head) :], len(head) + 1):
            where = f'{path}: line {line}'
            with found.reading(where, places.get(frames[line - 1])):
                _read_frame(found, where, frames[line - 1], places, dict(zip(columns, row[first:])))
    numbers = {part: i for i, part in enumerate(found.keypoints)}
    is_list = isinstance(links, list) and all(isinstance(link, list) and len(link) == 2 for link in links)
    if not is_list:
        found.wrong(files.root, f'skeleton of config.yaml is {short(links)}, expected pairs of body parts: not used')
    named = [tuple(numbers.get(str(part), -1) for part in link) for link in (links if is_list else ())]
    found.skeleton = [link for link in named if -1 not in link]
    return found


def _head_of(rows: list[list[str]]) -> tuple[dict[str, list[str]], int]:
    """The rows at the top by their first word, and the column of the first coordinate.

    Raises:
        DatasetError: They are not there.
    """
    head = {row[0]: row for row in rows[:4] if row and row[0] in _HEAD}
    if not {'bodyparts', 'coords'} <= head.keys():
        raise DatasetError('not DeepLabCut: no rows "bodyparts" and "coords" at the top')
    first = [i for i, word in enumerate(head['coords']) if word in ('x', 'y')]
    if not first:
        raise DatasetError('not DeepLabCut: no column x or y in the row "coords"')
    return head, first[0]


def _read_frame(found: Found, where: str, frame: str, places: dict[str, Path], values: dict) -> None:
    """The animals of a line: ``values`` has the text of each individual, body part and coordinate."""
    if (place := places.get(frame)) is None:
        found.missing.append(f'{where}: {frame}')
        return
    animals = {
        owner: points
        for owner in dict.fromkeys(owner for owner, _, _ in values)
        if any(points := [value for part in found.keypoints for value in _point(values, owner, part)])
    }
    if not animals:
        found.wrong(where, 'no body part is labelled: left out')
        return
    picture = found.picture(place, split_of(as_path(frame).parent))
    if not found.is_first(picture, where):
        return
    picture.things = []
    for owner, points in animals.items():
        box, own = box_of_keypoints(points, picture.size), f'{where}{f", {owner}" if owner else ""}'
        picture.things.append(Thing(found.classes[0], box, keypoints=points, place=own))


def _has_images(folder: Path, files: Files) -> bool:
    return any(name.lower().endswith(IMAGE_SUFFIXES) for name in files.by_folder.get(folder, ()))


def _point(values: dict, owner: str, part: str) -> tuple[float, float, int]:
    """x, y and 2 of a body part; zeros where it is not labelled. Pixel centres are whole numbers, as in COCO."""
    try:
        x, y = (float(values[owner, part, axis]) for axis in ('x', 'y'))
    except (KeyError, ValueError):
        return 0, 0, 0
    return (x, y, 2) if np.isfinite([x, y]).all() else (0, 0, 0)


# --- LabelMe ---


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


# --- folders of classes ---


def class_folders(files: Files) -> Iterator[tuple]:
    """Folders that hold pictures, two or more beside each other, below a folder for each split or not."""
    groups: dict[str, list[Path]] = {}
    for folder in files.by_folder:
        if folder != files.root and _has_images(folder, files):
            first, *below = folder.relative_to(files.root).parts
            groups.setdefault(below[0] if split_of(first) and below else first, []).append(folder)
    unlabelled = [folder for name in list(groups) if split_of(name) for folder in groups.pop(name)]
    are_split = any(split_of(folder.relative_to(files.root).parts[0]) for own in groups.values() for folder in own)
    if len(groups) > 1 and (are_split or not unlabelled):
        yield 'folders of classes', files.root, partial(_read_folders, groups, unlabelled, files)


def _read_folders(groups: dict[str, list[Path]], unlabelled: list[Path], files: Files) -> Found:
    found = Found('folders of classes', files.root)
    for folder in unlabelled:
        found.wrong(folder, 'its pictures are in no folder of a class: left out')
    for name, folders in sorted(groups.items()):
        if not name.strip():
            found.wrong(folders[0], 'has a blank name, which would be that of a class: left out')
            continue
        for folder in folders:
            for file in files.by_folder[folder]:
                if file.lower().endswith(IMAGE_SUFFIXES):
                    first = folder.relative_to(files.root).parts[0]
                    found.picture(folder / file, split_of(first) if first != name else '').label = name
    return found
