"""Pascal VOC: an XML file of boxes for each picture, as LabelImg writes it as well; and CVAT's one XML for all."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError, iterparse, parse

import numpy as np

from icconv_mm.data.checks import DatasetError
from icconv_mm.data.found import Files, Found, Picture, Thing, as_path, split_of
from icconv_mm.data.outlines import box_of_keypoints, fit_to_picture, outline_of
from icconv_mm.data.readers.lists import listed, splits_of
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
    found, names, labelled = Found('Pascal VOC', files.root), set(), set()
    lists = listed(files, 'Main', elsewhere=False)
    splits = splits_of(paths, lists, files, found)
    # A file without a picture of its own name may name that of another file, which comes first.
    for path in sorted(splits, key=lambda path: _beside(path, files) is None):
        try:
            root = _parsed(path)
        except DatasetError as error:
            found.wrong(path, str(error).removeprefix(f'{path}: ') + ': left out')
            continue
        picture = _voc_picture(found, path, root, files, splits[path])
        if picture is None or not found.is_first(picture, path):
            continue
        labelled.add(path.stem)
        picture.things = []
        for i, element in enumerate(root.iter('object')):
            thing = _voc_thing(found, element, f'{path}: object {i + 1}')
            if thing is not None:
                names.add(thing.name)
                picture.things.append(thing)
        written = [int(float(root.findtext(f'size/{side}') or 0)) for side in ('width', 'height')]
        fit_to_picture(found, picture, written, path)
    found.classes = sorted(names)
    for name in dict.fromkeys(line.split()[0] for _, line in lists):
        if not {name, as_path(name).name, as_path(name).stem} & labelled:
            found.missing.append(f'ImageSets: {name}: no XML or no picture')
    return found


def _beside(path: Path, files: Files) -> Path | None:
    """The picture with the name of an XML file."""
    above = path.parent.parent
    return files.beside(path.stem, path.parent, above / 'JPEGImages', above / 'images', above)


def _voc_picture(found: Found, path: Path, root: Element, files: Files, split: str) -> Picture | None:
    named = (root.findtext('filename') or '').strip()
    place = _beside(path, files)
    if place is None and named:  # of several pictures of that name, the one in a folder that is called like this one
        place = files.image(str(path.relative_to(files.root).parent / as_path(named)))
    if place is None:
        found.missing.append(f'{path}: {named or path.stem}')
        return None
    return found.picture(place, split)


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
    places = files.images((image.get('name', '') for image in root.iter('image')), path.parent, path.parent / 'images')
    for image in root.iter('image'):
        name = image.get('name', '')
        if (place := places.get(name)) is None:
            found.missing.append(f'{path}: {name}')
            continue
        picture = found.picture(place, split_of(image.get('subset') or '') or split_of(as_path(name).parent))
        if not found.is_first(picture, path):
            continue
        picture.things = []
        written = [int(float(image.get(side) or 0)) for side in ('width', 'height')]
        is_turned = written == [*picture.size[::-1]]
        size = picture.size[::-1] if is_turned else picture.size
        for i, element in enumerate(image):
            where = f'{path}: image {name}, {element.tag} {i + 1}'
            if element.tag == 'tag':
                picture.label = element.get('label')
                continue
            thing = _cvat_thing(found, element, size, where)
            if thing is not None:
                found.add_class(thing.name)
                picture.things.append(thing)
        fit_to_picture(found, picture, written, path)
    return found


def _cvat_thing(found: Found, element: Element, size: tuple[int, int], where: str) -> Thing | None:
    thing = Thing(element.get('label', ''), place=where)
    if element.tag == 'box':
        corners = [float(element.get(key, 'nan')) for key in ('xtl', 'ytl', 'xbr', 'ybr')]
        thing.box = _around_turned(*corners, float(element.get('rotation') or 0))
    elif element.tag == 'polygon':
        points = element.get('points', '').split(';')
        polygon = [float(value) for point in points for value in point.split(',')]
        thing.outline = outline_of([polygon], size, found, where)
        if thing.outline is None:
            return None
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
        if thing.box is None:
            found.wrong(where, 'all points are outside: left out')
            return None
    else:
        found.wrong(where, f'{element.tag} is no box, polygon, mask or skeleton: left out')
        return None
    return thing


def _around_turned(x1: float, y1: float, x2: float, y2: float, degrees: float) -> list[float]:
    """The box around one that is turned about its centre."""
    width, height = x2 - x1, y2 - y1
    if degrees == 0:
        return [x1, y1, width, height]
    turn = np.deg2rad(degrees)
    outer_width = abs(width * np.cos(turn)) + abs(height * np.sin(turn))
    outer_height = abs(width * np.sin(turn)) + abs(height * np.cos(turn))
    left, top = (x1 + x2 - outer_width) / 2, (y1 + y2 - outer_height) / 2
    return [float(value) for value in (left, top, outer_width, outer_height)]
