"""YOLO: a YAML with names and splits, and a text file of boxes, outlines or keypoints beside each picture."""

import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from icconv_mm.data.checks import DatasetError
from icconv_mm.data.found import IMAGE_SUFFIXES, Files, Found, Thing, followed, located
from icconv_mm.data.outlines import box_of_keypoints, outline_of

_KEYS = {'train': ('train',), 'val': ('val', 'valid', 'validation'), 'test': ('test',)}


def sources(files: Files) -> Iterator[tuple]:
    """YAML files that have ``names`` and a split in the form of a path."""
    for path in files.labels('.yaml', '.yml'):
        content = read_yaml(path)
        if 'names' in content and any(
            isinstance(content.get(key), (str, list)) for keys in _KEYS.values() for key in keys
        ):
            yield 'YOLO', path, partial(read, path, content)


def read_yaml(path: Path) -> dict:
    """The mapping in a YAML file; empty for what is none.

    Raises:
        DatasetError: It is not YAML.
    """
    import yaml

    try:
        content = yaml.safe_load(path.read_text(errors='replace'))
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise DatasetError(f'{path}: not YAML ({" ".join(str(error).split())})') from None
    return content if isinstance(content, dict) else {}


def read(path: Path, content: dict) -> Found:
    """What a ``data.yaml`` names.

    Raises:
        DatasetError: Its names or its keypoints are not of YOLO's form, or no picture of a split is there.
    """
    found = Found('YOLO', path)
    names = content['names']
    names = dict(enumerate(names)) if isinstance(names, list) else names
    if not isinstance(names, dict) or not all(str(key).isdigit() for key in names):
        raise DatasetError(f'{path}: names is {names!r:.60}, expected a list, or a mapping of numbers to names')
    names = {int(key): found.add_class(str(name)) for key, name in sorted(names.items(), key=lambda item: int(item[0]))}
    shape = content.get('kpt_shape')
    if shape is not None:
        if not (isinstance(shape, list) and len(shape) == 2 and shape[1] in (2, 3)):
            raise DatasetError(f'{path}: kpt_shape is {shape!r}, expected [number of keypoints, 2 or 3]')
        given = content.get('kpt_names') or content.get('keypoints') or [f'point_{k + 1}' for k in range(shape[0])]
        given = next(iter(given.values())) if isinstance(given, dict) else given
        found.keypoints = list(map(str, given))[: shape[0]]
        found.flips = list(content.get('flip_idx') or [])
    is_named = bool(content.get('skip_if_label_file_missing'))
    for split, keys in _KEYS.items():
        for key in keys:
            for place in _as_list(content.get(key)):
                _read_split(found, path, content, str(place), split, names, shape, is_named)
    if not found.pictures:
        raise DatasetError(f'{path}: none of the pictures of train, val and test is there')
    return found


def _as_list(value: Any) -> list:
    return list(value) if isinstance(value, list) else [] if value is None else [value]


def _read_split(
    found: Found, path: Path, content: dict, place: str, split: str, names: dict, shape: list | None, skip: bool
) -> None:
    root = located(str(content['path']), [path.parent]) if content.get('path') else None
    roots = [each for each in (root, path.parent) if each is not None]
    target = located(place, roots)
    if target is None:
        found.missing.append(f'{path}: {split}: {place}')
        return
    for picture_path in _pictures(found, target, [*roots, target.parent]):
        picture = found.picture(followed(picture_path), split)
        labels = _labels_of(picture_path)
        if labels.is_file():
            picture.things = []
            for number, line in enumerate(labels.read_text(errors='replace').splitlines(), 1):
                if line.strip():
                    _read_line(found, picture, line.split(), f'{labels}: line {number}', names, shape)
        elif skip:
            found.wrong(picture_path, f'has no {labels.name}: left out, as {path.name} says')
        else:
            picture.things = []  # as YOLO takes it: nothing is there to be found
            found.wrong(picture_path, f'has no {labels}: taken as a picture without objects')


def _pictures(found: Found, target: Path, roots: list[Path]) -> Iterator[Path]:
    """The pictures of a folder, or of a list in a text file, under the names by which their labels are found."""
    real = followed(target)
    if real.is_dir():
        for path in sorted(real.rglob('*')):
            if path.suffix.lower() in IMAGE_SUFFIXES:
                yield target / path.relative_to(real)
        return
    for line in filter(None, map(str.strip, real.read_text(errors='replace').splitlines())):
        if (path := located(line, roots)) is not None:
            yield path
        else:
            found.missing.append(f'{target}: {line}')


def _labels_of(path: Path) -> Path:
    """YOLO's rule: ``images`` in the path becomes ``labels``; else the text file is beside the picture."""
    parts = list(path.parts)
    for i in range(len(parts) - 2, -1, -1):
        if parts[i] == 'images':
            return followed(Path(*parts[:i], 'labels', *parts[i + 1 :]).with_suffix('.txt'))
    return path.with_suffix('.txt')


def _read_line(found: Found, picture: Any, words: list[str], where: str, names: dict, shape: list | None) -> None:
    try:
        label, *values = map(float, words)
    except ValueError:
        found.wrong(where, f'{" ".join(words)[:40]!r} are no numbers: left out')
        return
    if not all(map(math.isfinite, (label, *values))):
        found.wrong(where, f'{" ".join(words)[:40]!r} are not finite: left out')
        return
    if label not in names:
        found.wrong(where, f'class {label:g} has no name: left out')
        return
    count = shape[0] * shape[1] if shape else 0
    is_outline = not shape and len(values) >= 6 and len(values) % 2 == 0
    if not (is_outline or len(values) in (4 + count, 5 + count)):
        found.wrong(where, f'{len(words)} values: neither a box, nor an outline, nor keypoints: left out')
        return
    if any(value > 1.5 for value in values[:4]):
        found.wrong(where, f'{values[:4]} are no shares of the picture, which YOLO writes: left out')
        return
    width, height = picture.size
    thing = Thing(names[label], place=where)
    if is_outline:
        outline = [[value * (height if i % 2 else width) for i, value in enumerate(values)]]
        thing.outline = outline_of(outline, picture.size, found, where)
    else:
        x, y, w, h = (value * side for value, side in zip(values, (width, height, width, height)))
        thing.box = [x - w / 2, y - h / 2, w, h]
        if count:
            step, points = shape[1], []
            for x, y, *seen in (values[i : i + step] for i in range(4, 4 + count, step)):
                v = int(seen[0]) if seen else 2 * int(x > 0 or y > 0)
                points += [x * width, y * height, v] if v else [0, 0, 0]
            thing.keypoints = points if any(points[2::3]) else None
            if not (w and h):
                thing.box = box_of_keypoints(points, picture.size)
                if thing.box is None:
                    found.wrong(where, 'has neither a box nor a labelled keypoint: left out')
    if thing.box or thing.outline:
        picture.things.append(thing)
