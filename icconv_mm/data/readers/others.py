"""DeepLabCut's CSV files, LabelMe's JSON per picture, and folders that are named as classes."""

import csv
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from icconv_mm.data.checks import DatasetError
from icconv_mm.data.found import IMAGE_SUFFIXES, Files, Found, Thing, split_of
from icconv_mm.data.outlines import box_of_keypoints, outline_of
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
    for path in tables:
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
        for number, row in enumerate(rows[len(head) :], len(head) + 1):
            frame = '/'.join(filter(None, row[:first]))
            place = files.image(frame, path.parent, path.parent.parent.parent)
            if place is None:
                found.missing.append(f'{path}: line {number}: {frame}')
                continue
            picture = found.picture(place, split_of(frame))
            picture.things = picture.things or []
            values = dict(zip(zip(owners, parts, coords), row[first:]))
            for owner in dict.fromkeys(owners):
                points = [value for part in names for value in _point(values, owner, part)]
                where = f'{path}: line {number}{f", {owner}" if owner else ""}'
                if (box := box_of_keypoints(points, picture.size)) is not None:
                    picture.things.append(Thing(name, box, keypoints=points, place=where))
    numbers = {part: i for i, part in enumerate(found.keypoints)}
    found.skeleton = [(numbers[a], numbers[b]) for a, b in links if a in numbers and b in numbers]
    return found


def _point(values: dict, owner: str, part: str) -> tuple[float, float, int]:
    """x, y and 2 of a body part; zeros where it is not labelled. Pixel centres are whole numbers, as in COCO."""
    try:
        x, y = (float(values[owner, part, axis]) for axis in ('x', 'y'))
    except (KeyError, ValueError):
        return 0, 0, 0
    return (x, y, 2) if np.isfinite([x, y]).all() else (0, 0, 0)


# --- LabelMe ---


def _labelme(paths: list[Path], files: Files) -> Found:
    """Shapes of one ``group_id`` are one thing; points of a group are its keypoints, by their labels."""
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
    for path, content in contents.items():
        place = files.image(content.get('imagePath') or f'{path.stem}.jpg', path.parent)
        if place is None:
            found.missing.append(f'{path}: {content.get("imagePath")}')
            continue
        picture = found.picture(place, split_of(path.relative_to(files.root).parent))
        picture.things = []
        groups: dict[Any, list[tuple[int, dict]]] = {}
        for i, shape in enumerate(content.get('shapes') or ()):
            group = shape.get('group_id')
            groups.setdefault(f'shape {i}' if group is None else group, []).append((i, shape))
        for group in groups.values():
            thing = _labelme_thing(found, group, picture.size, f'{path}: shapes[{group[0][0]}]')
            if thing is not None:
                picture.things.append(thing)
    found.classes.sort()
    return found


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
    groups: dict[tuple[str, ...], list[Path]] = {}
    for folder, names in files.by_folder.items():
        if folder != files.root and any(name.lower().endswith(IMAGE_SUFFIXES) for name in names):
            parts = folder.relative_to(files.root).parts
            depth = 1 if split_of(parts[0]) and len(parts) > 1 else 0
            groups.setdefault((parts[depth],), []).append(folder)
    if len(groups) > 1 and not any(split_of(name) for (name,) in groups):
        yield 'folders of classes', files.root, partial(_read_folders, groups, files)


def _read_folders(groups: dict[tuple[str, ...], list[Path]], files: Files) -> Found:
    found = Found('folders of classes', files.root)
    for (name,), folders in sorted(groups.items()):
        for folder in folders:
            for file in files.by_folder[folder]:
                if file.lower().endswith(IMAGE_SUFFIXES):
                    first = folder.relative_to(files.root).parts[0]
                    found.picture(folder / file, split_of(first) if first != name else '').label = name
    return found
