"""Pascal VOC: an XML file of boxes for each picture, as LabelImg writes it as well; and CVAT's one XML for all."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError, iterparse, parse

import numpy as np

from icconv_mm.data.checks import DatasetError
from icconv_mm.data.found import IMAGE_SUFFIXES, Files, Found, Picture, Thing, split_of
from icconv_mm.data.outlines import box_of_keypoints
from icconv_mm_runtime.results import run_lengths

_BOX = ('xmin', 'ymin', 'xmax', 'ymax')


def sources(files: Files) -> Iterator[tuple]:
    """Folders of XML files whose root is ``annotation``, together as one set; files whose root is ``annotations``."""
    voc: list[Path] = []
    kinds: dict[Path, str] = {}
    for path in files.labels('.xml'):
        kind = kinds.get(path.parent) or _root(path)
        if kind == 'annotation':
            kinds[path.parent] = kind
            voc.append(path)
        elif kind == 'annotations':
            yield 'CVAT', path, partial(_cvat, path, files)
    if voc:
        yield 'Pascal VOC', files.root, partial(_voc, voc, files)


def _root(path: Path) -> str:
    try:
        return next(iterparse(path, events=('start',)))[1].tag
    except (ParseError, StopIteration, ValueError):
        return ''


def _parsed(path: Path) -> Element:
    try:
        return parse(path).getroot()
    except (ParseError, ValueError) as error:
        raise DatasetError(f'{path}: not XML ({error})') from None


def _voc(paths: list[Path], files: Files) -> Found:
    """Boxes count pixels from 1 and include the last one; ``difficult`` objects are neither learned nor missed."""
    found, splits = Found('Pascal VOC', files.root), _splits(files)
    names = set()
    for path in paths:
        try:
            root = _parsed(path)
        except DatasetError as error:
            found.wrong(path, str(error).removeprefix(f'{path}: ') + ': left out')
            continue
        picture = _voc_picture(found, path, root, files, splits)
        if picture is None:
            continue
        picture.things = []
        for i, element in enumerate(root.iter('object')):
            thing = _voc_thing(found, element, f'{path}: object {i + 1}')
            if thing is not None:
                names.add(thing.name)
                picture.things.append(thing)
    found.classes = sorted(names)
    labelled = {picture.path.stem for picture in found.pictures.values()}
    for stem in splits:
        if stem not in labelled:
            found.missing.append(f'ImageSets: {stem}: no XML or no picture')
    return found


def _splits(files: Files) -> dict[str, str]:
    """The split of each picture, by its name without suffix, as ``ImageSets/Main/*.txt`` lists it."""
    splits: dict[str, str] = {}
    for path in files.ending('.txt'):
        if 'ImageSets' in path.parts and path.stem in ('train', 'val', 'test'):
            for line in filter(str.strip, path.read_text(errors='replace').splitlines()):
                splits[line.split()[0]] = path.stem
    return splits


def _voc_picture(found: Found, path: Path, root: Element, files: Files, splits: dict[str, str]) -> Picture | None:
    named = (root.findtext('filename') or '').strip()
    near = [path.parent, path.parent.parent / 'JPEGImages', path.parent.parent / 'images', path.parent.parent]
    names = [f'{path.stem}{suffix}' for suffix in IMAGE_SUFFIXES]
    place = next((folder / name for folder in near for name in names if (folder / name).is_file()), None)
    place = place or (files.image(named) if named else None)
    if place is None:
        found.missing.append(f'{path}: {named or path.stem}')
        return None
    split = splits.get(path.stem, '') or split_of(path.relative_to(files.root).parent)
    if splits and not split:
        found.wrong(place, 'is in none of the lists of ImageSets: left out')
        return None
    picture = found.picture(place, split)
    written = tuple(int(float(root.findtext(f'size/{side}') or 0)) for side in ('width', 'height'))
    if all(written) and written != picture.size and not picture.problem:
        width, height = picture.size
        found.wrong(place, f'is {width} x {height}, but {path.name} says {written[0]} x {written[1]}')
    return picture


def _voc_thing(found: Found, element: Element, where: str) -> Thing | None:
    name = (element.findtext('name') or '').strip()
    try:
        x1, y1, x2, y2 = (float(element.findtext(f'bndbox/{side}')) for side in _BOX)
    except (TypeError, ValueError):
        found.wrong(where, 'has no bndbox of four numbers: left out')
        return None
    if not name:
        found.wrong(where, 'has no name: left out')
        return None
    if x2 <= x1 or y2 <= y1:
        found.wrong(where, f'{name}: the box from ({x1:g}, {y1:g}) to ({x2:g}, {y2:g}) has no area: left out')
        return None
    crowd = (element.findtext('difficult') or '0').strip() == '1'
    return Thing(name, [x1 - 1, y1 - 1, x2 - x1 + 1, y2 - y1 + 1], crowd=crowd, place=where)


# --- CVAT for images 1.1 ---


def _cvat(path: Path, files: Files) -> Found:
    found, root = Found('CVAT', path), _parsed(path)
    for label in root.iterfind('.//labels/label'):
        if label.findtext('type') != 'tag' and label.findtext('parent') is None:
            found.add_class(label.findtext('name') or '')
    for image in root.iter('image'):
        name = image.get('name', '')
        place = files.image(name, path.parent, path.parent / 'images')
        if place is None:
            found.missing.append(f'{path}: {name}')
            continue
        picture = found.picture(place, split_of(image.get('subset') or '') or split_of(name))
        picture.things = []
        for i, element in enumerate(image):
            where = f'{path}: image {name}, {element.tag} {i + 1}'
            if element.tag == 'tag':
                picture.label = element.get('label')
                continue
            thing = _cvat_thing(found, element, picture.size, where)
            if thing is not None:
                found.add_class(thing.name)
                picture.things.append(thing)
    return found


def _cvat_thing(found: Found, element: Element, size: tuple[int, int], where: str) -> Thing | None:
    thing = Thing(element.get('label', ''), place=where)
    if element.tag == 'box':
        x1, y1, x2, y2 = (float(element.get(key, 'nan')) for key in ('xtl', 'ytl', 'xbr', 'ybr'))
        thing.box = [x1, y1, x2 - x1, y2 - y1]
    elif element.tag == 'polygon':
        thing.outline = [[float(value) for point in element.get('points', '').split(';') for value in point.split(',')]]
    elif element.tag == 'mask':
        left, top, width, height = (int(element.get(key, '0')) for key in ('left', 'top', 'width', 'height'))
        runs = [int(run) for run in element.get('rle', '').split(',')]
        if sum(runs) != width * height:
            found.wrong(where, f'the runs have {sum(runs)} pixels, the mask {width} x {height}: left out')
            return None
        mask = np.zeros(size[::-1], dtype=np.uint8)
        values = np.repeat(np.arange(len(runs)) % 2, runs).reshape(height, width)
        part = mask[top : top + height, left : left + width]
        part[:] = values[: part.shape[0], : part.shape[1]]
        thing.outline = run_lengths(mask)
    elif element.tag == 'skeleton':
        points = {each.get('label', ''): each for each in element.iter('points')}
        if not found.keypoints:
            found.keypoints = sorted(points, key=lambda name: (len(name), name) if name.isdigit() else (0, name))
        thing.keypoints = []
        for name in found.keypoints:
            each = points.get(name)
            if each is None or each.get('outside') == '1':
                thing.keypoints += [0, 0, 0]
            else:
                x, y = map(float, each.get('points', '').split(','))
                thing.keypoints += [x, y, 1 if each.get('occluded') == '1' else 2]
        thing.box = box_of_keypoints(thing.keypoints, size)
    else:
        found.wrong(where, f'{element.tag} is no box, polygon, mask or skeleton: left out')
        return None
    return thing
