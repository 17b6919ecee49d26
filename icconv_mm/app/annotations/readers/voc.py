"""Reads Pascal VOC: an XML file of boxes per image, as LabelImg writes too, or of rotated boxes or polygons."""

import math
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError, iterparse

from icconv_mm.app.annotations.dataset import AnnotatedImage, Annotation, Dataset
from icconv_mm.app.annotations.images_on_disk import Files, as_path
from icconv_mm.app.annotations.readers.lists import listed, splits_of
from icconv_mm.app.annotations.segmentations import as_segmentation, fit_to_image, oriented_box, written_size
from icconv_mm.datasets.reading import DatasetError, as_number, head, read_xml
from icconv_mm.datasets.voc import BOX_SIDES
from icconv_mm_runtime.images import IMAGE_SUFFIXES

_ROTATED = ('cx', 'cy', 'w', 'h', 'angle')
# Tools whose boxes are those of the drawing, in pixels from 0, and the mark in their files.
_FROM_ZERO = (
    ('source/database', 'X-AnyLabeling', 'X-AnyLabeling'),
    ('explain', 'XML from ISAT', 'ISAT'),
    ('owner/name', 'Label Studio', 'Label Studio'),
)
_YES = ('1', 'true', 'yes')


def kind_of_xml(path: Path, files: Files) -> str:
    """Returns the tag of an XML file's root element; '' if it is not XML.

    Beside a file of Pascal VOC, whose root is ``annotation``, every other counts as one: there are many.
    """
    if path not in files.kinds:
        try:
            kind = files.kinds.get(path.parent) or next(iterparse(path, events=('start',)))[1].tag
        except (ParseError, StopIteration, ValueError, LookupError, OSError):
            kind = ''
        files.kinds[path] = kind
        if kind == 'annotation':
            files.kinds[path.parent] = kind
    return files.kinds[path]


def voc_sources(files: Files) -> Iterator[tuple]:
    """Yields XML files with the root ``annotation``, as one source."""
    kinds = {path: kind_of_xml(path, files) for path in files.labels('.xml')}
    voc = [path for path, kind in kinds.items() if kind == 'annotation']
    folders = {path.parent for path in voc}
    for path in (path for path, kind in kinds.items() if not kind):
        if path.parent in folders or path == files.only:
            voc.append(path)
        elif '<annotation' in head(path):
            files.warnings.warn(path, 'looks like annotations, and is not XML', is_left_out=True)
    if voc:
        yield 'Pascal VOC', files.root, partial(_voc, voc, files)


def _voc(paths: list[Path], files: Files) -> Dataset:
    """Reads boxes, rotated ones of roLabelImg, and polygons of MIT's LabelMe; ``difficult`` objects become crowds."""
    dataset = Dataset('Pascal VOC', files.root)
    lists = listed(files, 'Main', elsewhere=False)
    splits = splits_of(paths, lists, files, dataset)
    read: list[tuple[Path, AnnotatedImage, tuple[int, int] | None]] = []
    rotated: list[Annotation] = []
    tools: set[str] = set()
    replaced: list[str] = []  # images that are not there, and those that are read in their place
    # A file without an image of its own name may name another file's image: the file with that name is read first.
    for path in sorted(splits, key=lambda path: _beside(path, files) is None):
        with dataset.reading(path, _beside(path, files), splits[path]):
            root = read_xml(path)
            written = written_size(
                root.findtext('size/width') or root.findtext('imagesize/ncols'),
                root.findtext('size/height') or root.findtext('imagesize/nrows'),
                ('size/width', 'size/height'),
            )
            tools.add(next((tool for field, mark, tool in _FROM_ZERO if mark in (root.findtext(field) or '')), ''))
            image = _voc_image(dataset, path, root, files, splits[path], replaced)
            if image is None or not dataset.is_first(image, path):
                continue
            image.annotations = []
            read.append((path, image, written))
            for i, element in enumerate(root.iter('object')):
                where = f'{path}: object {i + 1}'
                with dataset.reading(where, image.path, image.split):
                    annotation, is_rotated = _voc_annotation(dataset, element, image, written, where)
                    if annotation is not None:
                        image.annotations.append(annotation)
                        rotated += [annotation] if is_rotated else []
    if replaced:
        more = f' ({len(replaced)} such files)' if len(replaced) > 1 else ''
        dataset.notes.append(f'{replaced[0]} is read in its place{more}')
    _count_pixels(dataset, read, rotated, '' if '' in tools else ' and '.join(sorted(tools)), files.voc_from)
    for path, image, written in read:
        fit_to_image(dataset, image, written, path)
    annotations = [annotation for _, annotation in dataset.annotations()]
    if annotations and all(annotation.box is None for annotation in annotations):
        dataset.format = 'LabelMe of MIT'
    if rotated:
        what = 'rotated boxes are polygons for masks, and the boxes around these for detection'
        dataset.notes.append(f'{len(rotated)} {what}')
    dataset.classes = sorted({annotation.name for annotation in annotations})
    _say_unlabelled(dataset, {path.stem for path in paths}, lists, files)
    return dataset


def _say_unlabelled(dataset: Dataset, stems: set[str], lists: Sequence[tuple[str, str]], files: Files) -> None:
    """Records the images without an XML file, those of the lists or else of the folders; ``stems`` are of XML files."""
    images = {path for path, image in dataset.images.items() if image.annotations is not None}
    near = dict.fromkeys([path.parent for path in images] + [files.root / 'JPEGImages'])
    for line in dict.fromkeys(line.split()[0] for _, line in lists):
        name = as_path(line)
        if {line, name.name, name.stem} & stems:
            continue
        stem = name.stem if name.suffix.lower() in IMAGE_SUFFIXES else name.name
        if (there := files.beside(stem, *near)) is None:
            dataset.missing.append(f'ImageSets: {line}')
        else:
            dataset.warn(there, 'is listed in ImageSets, and has no XML file', is_left_out=True)
    if not lists:
        folders = {path.parent for path in images}
        alone = [path for path in files.ending(*IMAGE_SUFFIXES) if path.parent in folders and path not in images]
        alone = [path for path in alone if path.stem not in stems]
        if alone:
            more = f' ({len(alone)} such images)' if len(alone) > 1 else ''
            dataset.warn(alone[0], f'has no XML file: not read{more}')


def _beside(path: Path, files: Files) -> Path | None:
    """Returns the image with the name of an XML file."""
    return files.beside(path.stem, *_near(path))


def _near(path: Path) -> list[Path]:
    """Returns the folders near an XML file that are searched first for its image."""
    above = path.parent.parent
    return [path.parent, above / 'JPEGImages', above / 'images', above]


def _voc_image(
    dataset: Dataset, path: Path, root: Element, files: Files, split: str, replaced: list[str]
) -> AnnotatedImage | None:
    """Returns the image of an XML file; adds a line to ``replaced`` if its name has another suffix in the file."""
    named = as_path(root.findtext('filename') or '')
    location = _beside(path, files)
    is_same = location is None or named.name.lower() == location.name.lower()
    is_other = not is_same and named.stem == path.stem and named.suffix.lower() in IMAGE_SUFFIXES
    if named.name and (location is None or is_other):
        # of several images of that name, the one whose folder is named like this file's
        given = files.image(str(path.relative_to(files.root).parent / named), *(_near(path) if is_other else ()))
        if is_other and given is None:
            replaced.append(f'{path}: {named.name} is not there, {location.name}')
        location = given or location
    if location is None:
        dataset.missing.append(f'{path}: {named.name or path.stem}')
        return None
    return dataset.image(location, split)


def _voc_annotation(
    dataset: Dataset, element: Element, image: AnnotatedImage, written: tuple[int, int] | None, where: str
) -> tuple[Annotation | None, bool]:
    """Returns the annotation of an object, and whether its box is rotated.

    Width and height of an upright box are the differences of its corners.

    Raises:
        DatasetError: A field is invalid; the message names it.
    """
    name = (element.findtext('name') or '').strip()
    if (element.findtext('deleted') or '').strip() == '1':  # LabelMe keeps them
        return None, False
    if not name:
        raise DatasetError('has no name')
    crowd = (element.findtext('difficult') or '').strip().lower() in _YES
    box, rotated = element.find('bndbox'), element.find('robndbox')
    size = image.size[::-1] if written == image.size[::-1] else image.size
    if box is None and rotated is not None:  # roLabelImg
        x, y, w, h, angle = (as_number(rotated.findtext(side), f'{name}: robndbox/{side}') for side in _ROTATED)
        around, corners = oriented_box((x, y), (w, h), math.degrees(angle))
        polygon = as_segmentation([corners], size, dataset, where, image)
        return Annotation(name, around, polygon, crowd=crowd, location=where), True
    if box is None and (points := element.findall('polygon/pt')):
        values = [as_number(point.findtext(side), f'{name}: polygon/pt/{side}') for point in points for side in 'xy']
        polygon = as_segmentation([values], size, dataset, where, image)
        return polygon and Annotation(name, segmentation=polygon, crowd=crowd, location=where), False
    if box is None:
        raise DatasetError(f'{name}: has no bndbox, and no polygon')
    x1, y1, x2, y2 = (as_number(box.findtext(side), f'{name}: bndbox/{side}') for side in BOX_SIDES)
    if x2 <= x1 or y2 <= y1:
        raise DatasetError(f'{name}: the box from ({x1:g}, {y1:g}) to ({x2:g}, {y2:g}) has no area')
    annotation = Annotation(name, [x1, y1, x2 - x1, y2 - y1], crowd=crowd, location=where)
    if element.find('polygon/x1') is not None:  # supervision, Roboflow
        tags = [f'{side}{k + 1}' for k in range(len(element.find('polygon')) // 2) for side in 'xy']
        values = [as_number(element.findtext(f'polygon/{tag}'), f'{name}: polygon/{tag}') for tag in tags]
        annotation.segmentation = as_segmentation([values], size, dataset, where, image)
    return annotation, False


def _count_pixels(
    dataset: Dataset,
    read: Sequence[tuple[Path, AnnotatedImage, tuple[int, int] | None]],
    rotated: Sequence[Annotation],
    tool: str,
    given: int | None,
) -> None:
    """Moves upright boxes that count pixels from 1 and include the last one; else they end before it.

    Counting from 1 no side starts at 0 and none has fractions; counting from 0 none ends at the image's width + 1. More
    boxes decide, else the tool that all files name; a set without either counts from 1. An end at the width says
    nothing: careless boxes end there.
    """
    boxes, polygons, from_zero, from_one = [], [], 0, 0
    others = set(map(id, rotated))
    for _, image, written in read:
        upright = [
            annotation
            for annotation in image.annotations
            if annotation.box is not None and id(annotation) not in others
        ]
        upright_boxes = [annotation.box for annotation in upright]
        polygons += [polygon for annotation in upright for polygon in annotation.segmentation or ()]
        width, height = (written or image.size) if upright_boxes else (0, 0)  # zeros if it cannot be read
        from_zero += sum(x == 0 or y == 0 or any(value % 1 for value in (x, y, w, h)) for x, y, w, h in upright_boxes)
        from_one += sum(width > 0 and (x + w == width + 1 or y + h == height + 1) for x, y, w, h in upright_boxes)
        boxes += upright_boxes
    first = int(from_zero <= from_one and not tool) if given is None else given
    if given is None and boxes:
        speaks = f'{from_zero} of {len(boxes)} start at 0 or have fractions'
        against = f'{from_one} of {len(boxes)} end at the width or height + 1'
        if tool and from_zero <= from_one:
            why = f'as {tool} writes them'
        elif not (from_zero or from_one):
            why = 'as in Pascal VOC; no box says otherwise'
        else:
            why = f'{speaks}, {against}' if from_zero and from_one else speaks if from_zero else against
        dataset.notes.append(f'boxes count pixels from {first}: {why} (--voc-from {1 - first} changes this)')
    for box in boxes if first else ():
        x, y, w, h = box
        box[:] = [x - 1, y - 1, w + 1, h + 1]
    for polygon in polygons if first else ():
        polygon[:] = [max(value - 1, 0) for value in polygon]
