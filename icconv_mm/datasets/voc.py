"""Checks of annotations in VOC XML files."""

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from xml.etree.ElementTree import Element

from icconv_mm.datasets.reading import DatasetError, as_number, read_xml

BOX_SIDES = ('xmin', 'ymin', 'xmax', 'ymax')


def voc_names(paths: Iterable[Path]) -> set[str]:
    """Returns the class names in some files, spelled as mmdet reads them."""
    names = {node.findtext('name') for path in paths for node in read_xml(path).iter('object')}
    return names - {None, ''}


def voc_defect(path: Path, classes: Collection[str]) -> str | None:
    """Returns what a file lacks of the fields that mmdet reads for every object of these classes; None if nothing."""
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
        if name in classes and (box is None or not _has_numbers(box, BOX_SIDES)):
            return f'object {i} ({name}) has no <bndbox> of {", ".join(f"<{side}>" for side in BOX_SIDES)}'
    return None


def _has_numbers(element: Element, fields: Sequence[str]) -> bool:
    try:
        return all(as_number(element.findtext(field), field) is not None for field in fields)
    except DatasetError:
        return False
