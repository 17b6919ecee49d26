"""DeepLabCut's CSV files, LabelMe's JSON per picture, and folders that are named as classes."""

import csv
import json
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from icconv_mm.data.checks import DatasetError
from icconv_mm.data.found import IMAGE_SUFFIXES, Files, Found, Thing, as_path, located, split_of
from icconv_mm.data.outlines import box_of_keypoints, fit_to_picture, outline_of
from icconv_mm.data.readers.coco import kind_of_json
from icconv_mm.data.readers.yolo import read_yaml

_HEAD = ('scorer', 'individuals', 'bodyparts', 'coords')
_CORNERS = 32  # of a polygon in the place of a circle


def sources(files: Files) -> Iterator[tuple]:
    """CSV files that begin with ``scorer``; JSON files of LabelMe. Folders of classes are :func:`class_folders`."""
    tables = [path for path in files.labels('.csv') if path.read_text(errors='replace').startswith('scorer')]
    if tables:
        yield 'DeepLabCut', files.root, partial(_deeplabcut, tables, files)
    shapes = [path for path in files.labels('.json') if kind_of_json(path) == 'LabelMe']
    if shapes:
        yield 'LabelMe', files.root, partial(_labelme, shapes, files)


# --- DeepLabCut ---


def _deeplabcut(tables: list[Path], files: Files) -> Found:
    """A row for each frame, x and y of each body part; several animals where there is a row ``individuals``."""
    found = Found('DeepLabCut', files.root)
    name = found.add_class('animal')
    links: list = []
    for path in files.ending('config.yaml'):
        content = read_yaml(path)
        if 'bodyparts' in content or 'multianimalbodyparts' in content:
            links = content.get('skeleton') or []
    for path in sorted(tables, key=lambda path: not _has_images(path.parent, files)):  # others may lead anywhere
        rows = list(csv.reader(path.read_text(errors='replace').splitlines()))
        head = {row[0]: row for row in rows[:4] if row and row[0] in _HEAD}
        if not {'bodyparts', 'coords'} <= head.keys():
            raise DatasetError(f'{path}: not DeepLabCut: no rows "bodyparts" and "coords" at the top')
        first = next(i for i, word in enumerate(head['coords']) if word in ('x', 'y'))
        parts, coords = head['bodyparts'][first:], head['coords'][first:]
        owners = head.get('individuals', [''] * len(head['coords']))[first:]
        names = list(dict.fromkeys(parts))
        if found.keypoints and found.keypoints != names:
            raise DatasetError(f'{path}: body parts {names}, in the files before it {found.keypoints}')
        found.keypoints = names
        frames = ['/'.join(filter(None, row[:first])) for row in rows]
        places = files.images(frames[len(head) :], path.parent, path.parent.parent.parent)
        for number, row in enumerate(rows[len(head) :], len(head) + 1):
            where, frame = f'{path}: line {number}', frames[number - 1]
            if (place := places.get(frame)) is None:
                found.missing.append(f'{where}: {frame}')
                continue
            values = dict(zip(zip(owners, parts, coords), row[first:]))
            animals = {
                owner: points
                for owner in dict.fromkeys(owners)
                if any(points := [value for part in names for value in _point(values, owner, part)])
            }
            if not animals:
                found.wrong(where, 'no body part is labelled: left out')
                continue
            picture = found.picture(place, split_of(as_path(frame).parent))
            if not found.is_first(picture, where):
                continue
            picture.things = []
            for owner, points in animals.items():
                box, own = box_of_keypoints(points, picture.size), f'{where}{f", {owner}" if owner else ""}'
                picture.things.append(Thing(name, box, keypoints=points, place=own))
    numbers = {part: i for i, part in enumerate(found.keypoints)}
    found.skeleton = [(numbers[a], numbers[b]) for a, b in links if a in numbers and b in numbers]
    return found


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
        try:
            contents[path] = json.loads(path.read_bytes())
        except ValueError as error:
            found.wrong(path, f'not JSON ({error}): left out')
    points = {
        s.get('label') for c in contents.values() for s in c.get('shapes') or () if s.get('shape_type') == 'point'
    }
    found.keypoints = sorted(filter(None, points))
    for path in sorted(contents, key=lambda path: located(_image_of(contents[path], path), [path.parent]) is None):
        content = contents[path]
        place = files.image(_image_of(content, path), path.parent)
        if place is None:
            found.missing.append(f'{path}: {content.get("imagePath")}')
            continue
        picture = found.picture(place, files.split_of(path))
        if not found.is_first(picture, path):
            continue
        picture.things = []
        for group in _grouped(found, content.get('shapes') or (), path):
            thing = _labelme_thing(found, group, picture.size, f'{path}: shapes[{group[0][0]}]')
            if thing is not None:
                picture.things.append(thing)
        fit_to_picture(found, picture, (content.get('imageWidth'), content.get('imageHeight')), path)
    found.classes.sort()
    return found


def _image_of(content: dict, path: Path) -> str:
    return content.get('imagePath') or f'{path.stem}.jpg'


def _grouped(found: Found, shapes: Sequence[dict], path: Path) -> list[list[tuple[int, dict]]]:
    """The shapes of each thing with their numbers.

    Points without a ``group_id`` are of the only thing there is, or are one. Where all points are called alike, each is
    a thing.
    """
    groups: dict[Any, list[tuple[int, dict]]] = {}
    points = []
    for i, shape in enumerate(shapes):
        group = shape.get('group_id')
        if group is None and shape.get('shape_type') == 'point' and len(found.keypoints) > 1:
            points.append((i, shape))
        else:
            groups.setdefault(f'shape {i}' if group is None else group, []).append((i, shape))
    made = list(groups.values())
    if len(made) > 1 or len({shape.get('label') for _, shape in points}) < len(points):
        for i, _ in points:
            found.wrong(f'{path}: shapes[{i}]', 'a point without a group_id, which says whose it is: left out')
    elif points:
        made = [[*(made[0] if made else ()), *points]]
    return made


def _labelme_thing(found: Found, group: list[tuple[int, dict]], size: tuple[int, int], where: str) -> Thing | None:
    outlines, box, points, name = [], None, {}, ''
    for _, shape in group:
        given, kind = shape.get('points') or [], shape.get('shape_type') or 'polygon'
        if kind == 'point' and given:
            points[shape.get('label')] = given[0]
            continue
        name = shape.get('label') or ''
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
    thing.outline = outline_of(outlines or None, size, found, where)
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
        for folder in folders:
            for file in files.by_folder[folder]:
                if file.lower().endswith(IMAGE_SUFFIXES):
                    first = folder.relative_to(files.root).parts[0]
                    found.picture(folder / file, split_of(first) if first != name else '').label = name
    return found
