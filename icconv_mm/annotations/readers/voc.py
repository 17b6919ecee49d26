"""Reads Pascal VOC (an XML file of boxes per image, as LabelImg writes too) and CVAT (one XML file for all images)."""

import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError, iterparse

import numpy as np

from icconv_mm.annotations.dataset import AnnotatedImage, Annotation, Dataset
from icconv_mm.annotations.images_on_disk import Files, as_path, split_of
from icconv_mm.annotations.readers.lists import listed, splits_of
from icconv_mm.annotations.reading import DatasetError, as_integer, as_number, head, read_xml
from icconv_mm.annotations.segmentations import as_segmentation, box_of_keypoints, fit_to_image, written_size
from icconv_mm.errors import short
from icconv_mm_runtime.coco import encode_rle

_BOX = ('xmin', 'ymin', 'xmax', 'ymax')


def voc_sources(files: Files) -> Iterator[tuple]:
    """Yields XML files with the root ``annotation``, as one source, and each file with the root ``annotations``."""
    voc: list[Path] = []
    strange: list[Path] = []
    kinds: dict[Path, str] = {}
    for path in files.labels('.xml'):
        kind = kinds.get(path.parent) or _root(path)
        if kind == 'annotation':
            kinds[path.parent] = kind
            voc.append(path)
        elif kind == 'annotations':
            yield 'CVAT', path, partial(_cvat, path, files)
        elif kind is None:
            strange.append(path)
    for path in strange:
        if path.parent in kinds or path == files.only:
            voc.append(path)
        elif '<annotation' in head(path):
            files.warnings.append((str(path), 'looks like annotations, and is not XML: left out'))
    if voc:
        yield 'Pascal VOC', files.root, partial(_voc, voc, files)


def _root(path: Path) -> str | None:
    """Returns the tag of the root element; None if the file is not XML."""
    try:
        return next(iterparse(path, events=('start',)))[1].tag
    except (ParseError, StopIteration, ValueError, LookupError, OSError):
        return None


def _voc(paths: list[Path], files: Files) -> Dataset:
    """Reads boxes, whose pixels count from 1 and include the last one; ``difficult`` objects become crowds."""
    dataset, names, labelled = Dataset('Pascal VOC', files.root), set(), set()
    lists = listed(files, 'Main', elsewhere=False)
    splits = splits_of(paths, lists, files, dataset)
    # A file without an image of its own name may name another file's image: the file with that name is read first.
    for path in sorted(splits, key=lambda path: _beside(path, files) is None):
        with dataset.reading(path, _beside(path, files), splits[path]):
            root = read_xml(path)
            written = _written(root.findtext('size/width'), root.findtext('size/height'), 'size/')
            image = _voc_image(dataset, path, root, files, splits[path])
            if image is None or not dataset.is_first(image, path):
                continue
            labelled.add(path.stem)
            image.annotations = []
            for i, element in enumerate(root.iter('object')):
                where = f'{path}: object {i + 1}'
                with dataset.reading(where, image.path, image.split):
                    annotation = _voc_annotation(element, where)
                    names.add(annotation.name)
                    image.annotations.append(annotation)
            fit_to_image(dataset, image, written, path)
    dataset.classes = sorted(names)
    for name in dict.fromkeys(line.split()[0] for _, line in lists):
        if not {name, as_path(name).name, as_path(name).stem} & labelled:
            dataset.missing.append(f'ImageSets: {name}: no XML or no image')
    return dataset


def _written(width: str | None, height: str | None, prefix: str = '') -> tuple[int, int] | None:
    """Returns width and height given by an XML file, as integers or ``'640.0'``; None if it gives none."""
    return written_size(width, height, (f'{prefix}width', f'{prefix}height'))


def _beside(path: Path, files: Files) -> Path | None:
    """Returns the image with the name of an XML file."""
    above = path.parent.parent
    return files.beside(path.stem, path.parent, above / 'JPEGImages', above / 'images', above)


def _voc_image(dataset: Dataset, path: Path, root: Element, files: Files, split: str) -> AnnotatedImage | None:
    named = (root.findtext('filename') or '').strip()
    location = _beside(path, files)
    if location is None and named:  # of several images of that name, the one whose folder is named like this file's
        location = files.image(str(path.relative_to(files.root).parent / as_path(named)))
    if location is None:
        dataset.missing.append(f'{path}: {named or path.stem}')
        return None
    return dataset.image(location, split)


def _voc_annotation(element: Element, where: str) -> Annotation:
    """Returns the annotation of an object; raises DatasetError, naming the field, if it is invalid."""
    name = (element.findtext('name') or '').strip()
    if not name:
        raise DatasetError('has no name')
    if element.find('bndbox') is None:
        raise DatasetError(f'{name}: has no bndbox')
    x1, y1, x2, y2 = (as_number(element.findtext(f'bndbox/{side}'), f'{name}: bndbox/{side}') for side in _BOX)
    if x2 <= x1 or y2 <= y1:
        raise DatasetError(f'{name}: the box from ({x1:g}, {y1:g}) to ({x2:g}, {y2:g}) has no area')
    crowd = (element.findtext('difficult') or '0').strip() == '1'
    return Annotation(name, [x1 - 1, y1 - 1, x2 - x1 + 1, y2 - y1 + 1], crowd=crowd, location=where)


def voc_names(paths: Iterable[Path]) -> set[str]:
    """Returns the class names in some files, spelled as mmdet reads them."""
    names = {each.findtext('name') for path in paths for each in read_xml(path).iter('object')}
    return names - {None, ''}


def voc_defect(path: Path, classes: Collection[str]) -> str | None:
    """Returns what mmdet needs for these classes and a file lacks, even for objects it would skip; None if nothing."""
    try:
        root = read_xml(path)
    except DatasetError as error:
        return str(error).removeprefix(f'{path}: ')
    size = root.find('size')
    if size is not None and not _has_numbers(size, ('width', 'height')):
        return '<size> has no <width> and <height> in pixels'
    for i, element in enumerate(root.iterfind('object'), 1):
        if (name := element.findtext('name')) is None:
            return f'object {i} has no <name>'
        box = element.find('bndbox')
        if name in classes and (box is None or not _has_numbers(box, _BOX)):
            return f'object {i} ({name}) has no <bndbox> of {", ".join(f"<{side}>" for side in _BOX)}'
    return None


def _has_numbers(element: Element, fields: Sequence[str]) -> bool:
    try:
        return all(as_number(element.findtext(field), field) is not None for field in fields)
    except DatasetError:
        return False


# --- CVAT for images 1.1 ---


def _cvat(path: Path, files: Files) -> Dataset:
    """Reads all images of one file; raises DatasetError if it is not XML."""
    dataset, root = Dataset('CVAT', path), read_xml(path)
    for label in root.iterfind('.//labels/label'):
        if label.findtext('type') != 'tag' and label.findtext('parent') is None:
            if name := (label.findtext('name') or '').strip():
                dataset.add_class(name)
            else:
                dataset.warn(path, 'a label has a blank name: left out')
    locations = files.images(
        (element.get('name', '') for element in root.iter('image')), path.parent, path.parent / 'images'
    )
    for element in root.iter('image'):
        name = element.get('name', '')
        if (location := locations.get(name)) is None:
            dataset.missing.append(f'{path}: {name}')
            continue
        split = split_of(element.get('subset') or '') or split_of(as_path(name).parent)
        with dataset.reading(f'{path}: image {name}', os.path.realpath(location), split):
            written = _written(element.get('width'), element.get('height'))
            image = dataset.image(location, split)
            if dataset.is_first(image, path):
                image.annotations = []
                _cvat_image(dataset, element, image, written, f'{path}: image {name}')
                fit_to_image(dataset, image, written, path)
    return dataset


def _cvat_image(
    dataset: Dataset, parent: Element, image: AnnotatedImage, written: tuple[int, int] | None, where: str
) -> None:
    """Adds the objects and tags of an image."""
    size = image.size[::-1] if written == image.size[::-1] else image.size
    for i, element in enumerate(parent):
        own = f'{where}, {element.tag} {i + 1}'
        with dataset.reading(own, image.path, image.split):
            label = (element.get('label') or '').strip()
            if not label:
                raise DatasetError('label is blank')
            if element.tag == 'tag':
                image.label = label
            elif element.tag not in ('box', 'polygon', 'mask', 'skeleton'):
                dataset.warn(own, f'{element.tag} is no box, polygon, mask or skeleton: left out')
            elif (annotation := _cvat_annotation(dataset, element, label, image, size, own)) is not None:
                dataset.add_class(label)
                image.annotations.append(annotation)


def _cvat_annotation(
    dataset: Dataset, element: Element, label: str, image: AnnotatedImage, size: tuple[int, int], where: str
) -> Annotation | None:
    annotation = Annotation(label, location=where)
    if element.tag == 'box':
        corners = [as_number(element.get(key), key) for key in ('xtl', 'ytl', 'xbr', 'ybr')]
        annotation.box = _around_rotated(*corners, as_number(element.get('rotation') or 0, 'rotation'))
    elif element.tag == 'polygon':
        annotation.segmentation = as_segmentation([_polygon(element.get('points', ''))], size, dataset, where, image)
        if annotation.segmentation is None:
            return None
    elif element.tag == 'mask':
        annotation.segmentation = encode_rle(_cvat_mask(element, size))
    else:
        _take_skeleton(dataset, annotation, element, size)
        annotation.box = box_of_keypoints(annotation.keypoints, size)
        if annotation.box is None:
            dataset.warn(where, 'all points are outside: left out')
            return None
    return annotation


def _polygon(text: str) -> list[float]:
    try:
        polygon = list(map(float, text.replace(';', ',').split(',')))
    except ValueError:
        raise DatasetError(f'points is {short(text, 40)}, expected x,y;x,y;...') from None
    if text.count(',') != text.count(';') + 1:
        raise DatasetError(f'points is {short(text, 40)}, expected x,y;x,y;...')
    return polygon


def _point(text: str | None) -> tuple[float, float]:
    x, comma, y = (text or '').partition(',')
    if not comma:
        raise DatasetError(f'points has {short(text, 40)}, expected x,y')
    return as_number(x, 'points'), as_number(y, 'points')


def _cvat_mask(element: Element, size: tuple[int, int]) -> np.ndarray:
    """Returns the mask [H, W] of an image, clipped to its border."""
    left, top, width, height = (as_integer(element.get(key), key) for key in ('left', 'top', 'width', 'height'))
    if not (0 < width <= 2 * size[0] and 0 < height <= 2 * size[1]):
        raise DatasetError(f'width and height are {width} x {height}, those of its image {size[0]} x {size[1]}')
    try:
        runs = list(map(int, (rle := element.get('rle', '')).split(',')))
    except ValueError:
        raise DatasetError(f'rle is {short(rle, 40)}, expected numbers of pixels') from None
    if min(runs) < 0 or sum(runs) != width * height:
        raise DatasetError(f'rle has {short(sum(runs), 20)} pixels, the mask {width} x {height}')
    values = np.repeat(np.arange(len(runs), dtype=np.uint8) % 2, runs).reshape(height, width)
    x, y = max(left, 0), max(top, 0)
    values = values[y - top : max(size[1] - top, 0), x - left : max(size[0] - left, 0)]
    mask = np.zeros(size[::-1], dtype=np.uint8)
    mask[y : y + values.shape[0], x : x + values.shape[1]] = values
    if not mask.any():
        raise DatasetError('the mask is empty, or outside the image')
    return mask


def _take_skeleton(dataset: Dataset, annotation: Annotation, element: Element, size: tuple[int, int]) -> None:
    points = {each.get('label', ''): each for each in element.iter('points')}
    if not dataset.keypoints:
        dataset.keypoints = sorted(points, key=lambda name: (len(name), name) if name.isdigit() else (0, name))
    annotation.keypoints = []
    for name in dataset.keypoints:
        each = points.get(name)
        if each is None or each.get('outside') == '1':
            annotation.keypoints += [0, 0, 0]
        else:
            annotation.keypoints += [*_point(each.get('points')), 1 if each.get('occluded') == '1' else 2]


def _around_rotated(x1: float, y1: float, x2: float, y2: float, degrees: float) -> list[float]:
    """Returns the axis-aligned box around a rotated one."""
    width, height = x2 - x1, y2 - y1
    if degrees == 0:
        return [x1, y1, width, height]
    turn = np.deg2rad(degrees)
    outer_width = abs(width * np.cos(turn)) + abs(height * np.sin(turn))
    outer_height = abs(width * np.sin(turn)) + abs(height * np.cos(turn))
    left, top = (x1 + x2 - outer_width) / 2, (y1 + y2 - outer_height) / 2
    return [float(value) for value in (left, top, outer_width, outer_height)]
