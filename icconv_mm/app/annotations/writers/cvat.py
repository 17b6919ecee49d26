"""Writes CVAT's XML for images 1.1: boxes, polygons, masks, skeletons and tags."""

import itertools
from pathlib import Path
from xml.etree import ElementTree
from xml.sax.saxutils import quoteattr

import numpy as np

from icconv_mm.app.annotations.dataset import AnnotatedImage, Annotation, Dataset
from icconv_mm.app.annotations.segmentations import mask_of
from icconv_mm.app.annotations.writers.images import into_new_folder, place_images, usable_images, warn_of_losses
from icconv_mm.files import atomic_write


@into_new_folder
def write_cvat(dataset: Dataset, folder: Path, copy: bool = False) -> Path:
    """Writes ``annotations.xml``, or ``SPLIT.xml`` for each split, to be uploaded as "CVAT 1.1", and ``images``.

    The polygons of an object share a ``group_id``, and so do a skeleton and its box or mask. The format has no
    scores.

    Args:
        dataset: The dataset.
        folder: A new or empty folder.
        copy: Whether images are copied; else they are linked.

    Raises:
        ArgumentError: The folder is not empty, or there are only segmentation maps.
    """
    images = usable_images(dataset, 'CVAT', 'detection', 'classification')
    names = place_images(images, folder / 'images', copy)
    for split in sorted({image.split for image in images}):  # datumaro reads only shapes of the file's subset
        root = ElementTree.Element('annotations')
        ElementTree.SubElement(root, 'version').text = '1.1'
        _add_labels(ElementTree.SubElement(ElementTree.SubElement(root, 'meta'), 'task'), dataset)
        for number, image in enumerate(image for image in images if image.split == split):
            width, height = map(str, image.size)
            attributes = {'id': str(number), 'name': names[image.path].as_posix(), 'width': width, 'height': height}
            element = ElementTree.SubElement(root, 'image', attributes | ({'subset': split} if split else {}))
            for name in dict.fromkeys(image.labels):
                ElementTree.SubElement(element, 'tag', label=name, source='manual')
            groups = itertools.count(1)
            for annotation in image.annotations or ():
                _add_object(element, dataset, image, annotation, groups)
        ElementTree.indent(root)
        with atomic_write(folder / f'{split or "annotations"}.xml') as file:
            file.write(ElementTree.tostring(root, 'utf-8', xml_declaration=True))
    annotations = [annotation for image in images for annotation in image.annotations or ()]
    losses = [
        (sum(annotation.crowd for annotation in annotations), 'crowds and ignored objects', 'written as objects'),
        (sum(image.seg_map is not None for image in images), 'segmentation maps', 'not written'),
        (sum(annotation.score is not None for annotation in annotations), 'scores', 'not written'),
    ]
    warn_of_losses(dataset, 'CVAT', losses)
    return folder


def _add_labels(task: ElementTree.Element, dataset: Dataset) -> None:
    labels = ElementTree.SubElement(task, 'labels')
    posed = {annotation.name for _, annotation in dataset.annotations() if annotation.keypoints is not None}
    for name in dict.fromkeys([*dataset.classes, *dataset.labels()]):
        label = ElementTree.SubElement(labels, 'label')
        ElementTree.SubElement(label, 'name').text = name
        ElementTree.SubElement(label, 'type').text = 'skeleton' if name in posed else 'any'
        if name in posed:
            ElementTree.SubElement(label, 'svg').text = _drawing(*dataset.keypoints_of(name))
        for point in dataset.keypoints_of(name)[0] if name in posed else ():
            sublabel = ElementTree.SubElement(labels, 'label')
            ElementTree.SubElement(sublabel, 'name').text = point
            ElementTree.SubElement(sublabel, 'type').text = 'points'
            ElementTree.SubElement(sublabel, 'parent').text = name


def _drawing(names: list[str], skeleton: list[tuple[int, int]]) -> str:
    """Returns the SVG of a skeleton, whose nodes stand on a circle: CVAT keeps its lines there."""
    lines = [f'<line data-type="edge" data-node-from="{a + 1}" data-node-to="{b + 1}"/>' for a, b in skeleton]
    turns = np.linspace(0, 2 * np.pi, len(names), endpoint=False)
    nodes = [
        f'<circle r="1" cx="{50 + 40 * np.cos(turn):.1f}" cy="{50 + 40 * np.sin(turn):.1f}" data-type="element node" '
        f'data-element-id="{i}" data-node-id="{i}" data-label-name={quoteattr(name)}/>'
        for i, (name, turn) in enumerate(zip(names, turns), 1)
    ]
    return ''.join(lines + nodes)


def _add_object(
    element: ElementTree.Element,
    dataset: Dataset,
    image: AnnotatedImage,
    annotation: Annotation,
    groups: itertools.count,
) -> None:
    shapes = []
    if isinstance(annotation.segmentation, list):
        for polygon in annotation.segmentation:
            points = ';'.join(f'{x:.9g},{y:.9g}' for x, y in np.reshape(polygon, (-1, 2)).tolist())
            shapes.append(('polygon', {'points': points}))
    elif annotation.segmentation is not None:
        shapes.append(('mask', _runs(mask_of(annotation.segmentation, image.size))))
    else:
        x, y, w, h = annotation.box
        corners = zip(('xtl', 'ytl', 'xbr', 'ybr'), (x, y, x + w, y + h))
        shapes.append(('box', {key: f'{value:.9g}' for key, value in corners}))
    count = len(shapes) + (annotation.keypoints is not None)
    common = {'label': annotation.name, 'source': 'manual', 'occluded': '0', 'z_order': '0'}
    common |= {'group_id': str(next(groups))} if count > 1 else {}
    for kind, coordinates in shapes:
        ElementTree.SubElement(element, kind, common | coordinates)
    if annotation.keypoints is not None:
        skeleton = ElementTree.SubElement(element, 'skeleton', common)
        names, _ = dataset.keypoints_of(annotation.name)
        for name, (x, y, seen) in zip(names, np.reshape(annotation.keypoints, (-1, 3)).tolist()):
            states = {'outside': str(int(seen == 0)), 'occluded': str(int(seen == 1))}
            ElementTree.SubElement(skeleton, 'points', {'label': name, **states, 'points': f'{x:.9g},{y:.9g}'})


def _runs(mask: np.ndarray) -> dict[str, str]:
    """Returns the RLE of a mask [H, W], row by row and from 0 on, in the box around it."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    part = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    values = np.concatenate([[0], part.ravel()])
    ends = np.append(np.flatnonzero(np.diff(values)), part.size)
    runs = np.diff(ends, prepend=0)
    sides = {'left': columns[0], 'top': rows[0], 'width': part.shape[1], 'height': part.shape[0]}
    return {'rle': ', '.join(map(str, runs.tolist()))} | {key: str(value) for key, value in sides.items()}
