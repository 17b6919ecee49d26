"""Writes Label Studio's tasks with annotations, or with pre-annotations where objects have scores."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

import numpy as np

from icconv_mm.app.annotations.brush import encode_brush
from icconv_mm.app.annotations.dataset import AnnotatedImage, Annotation, Dataset
from icconv_mm.app.annotations.segmentations import mask_of
from icconv_mm.app.annotations.writers.images import into_new_folder, place_images, usable_images, warn_of_losses
from icconv_mm.files import atomic_write, write_json


@into_new_folder
def write_label_studio(dataset: Dataset, folder: Path, copy: bool = False) -> Path:
    """Writes ``tasks.json``, ``labeling_config.xml`` and ``images``, to be imported with the folder as local storage.

    A mask of one polygon is a polygon, any other a brush; keypoints have their object's box as parent. Objects with
    scores become predictions, which are pre-annotations in Label Studio.

    Args:
        dataset: The dataset.
        folder: A new or empty folder.
        copy: Whether images are copied; else they are linked.

    Raises:
        ArgumentError: The folder is not empty, or there are only segmentation maps.
    """
    images = usable_images(dataset, 'Label Studio', 'detection', 'classification')
    names = place_images(images, folder / 'images', copy, by_split=True)
    tasks, are_predicted = (
        [],
        any(annotation.score is not None for image in images for annotation in image.annotations or ()),
    )
    for image in images:
        task: dict[str, Any] = {'data': {'image': f'/data/local-files/?d=images/{quote(names[image.path].as_posix())}'}}
        result = list(_regions(dataset, image))
        scores = [annotation.score for annotation in image.annotations or () if annotation.score is not None]
        if scores:
            task |= {'annotations': [], 'predictions': [{'score': min(scores), 'result': result}]}
        elif are_predicted and not result:  # nothing was found there; nobody has looked yet
            task |= {'annotations': [], 'predictions': []}
        elif image.annotations is not None or image.labels:
            task |= {'annotations': [{'result': result}]}
        tasks.append(task)
    write_json(folder / 'tasks.json', tasks, indent=1)
    annotations = [annotation for image in images for annotation in image.annotations or ()]
    hidden = sum((annotation.keypoints or [])[2::3].count(1) for annotation in annotations)
    losses = [
        (sum(annotation.crowd for annotation in annotations), 'crowds and ignored objects', 'written as objects'),
        (hidden, 'hidden keypoints', 'written as visible'),
        (sum(image.seg_map is not None for image in images), 'segmentation maps', 'not written'),
    ]
    warn_of_losses(dataset, 'Label Studio', losses)
    with atomic_write(folder / 'labeling_config.xml') as file:
        file.write(_config(dataset).encode())
    return folder


def _config(dataset: Dataset) -> str:
    """Returns Label Studio's labeling interface for the dataset."""
    tags = [('RectangleLabels', 'Label', dataset.classes)]
    if 'instance' in dataset.tasks():
        tags += [('PolygonLabels', 'Label', dataset.classes), ('BrushLabels', 'Label', dataset.classes)]
    points = dict.fromkeys(keypoint for name in dataset.classes for keypoint in dataset.keypoints_of(name)[0])
    tags += [('KeyPointLabels', 'Label', list(points))]
    tags += [('Choices', 'Choice', dataset.labels())]
    parts = ['<View>', '  <Image name="image" value="$image"/>']
    for tag, item, values in tags:
        if values:
            parts.append(f'  <{tag} name="{tag.lower()}" toName="image">')
            parts += [f'    <{item} value={quoteattr(value)}/>' for value in values]
            parts.append(f'  </{tag}>')
    return '\n'.join([*parts, '</View>', ''])


def _regions(dataset: Dataset, image: AnnotatedImage) -> Iterator[dict[str, Any]]:
    """Yields the regions of an image: positions are shares of its sides in percent."""
    width, height = image.size
    numbers = itertools.count(1)

    def region(kind: str, label: str | None, value: dict[str, Any], **more: Any) -> dict[str, Any]:
        result = {'id': f'r{next(numbers)}', 'type': kind, 'from_name': kind, 'to_name': 'image'}
        result |= {'original_width': width, 'original_height': height, 'image_rotation': 0, **more}
        return result | {'value': value if label is None else value | {kind: [label]}}

    if image.labels:
        yield region('choices', None, {'choices': list(dict.fromkeys(image.labels))})
    for annotation in image.annotations or ():
        x, y, w, h = (100 * value / side for value, side in zip(annotation.box, (width, height, width, height)))
        more = {} if annotation.score is None else {'score': annotation.score}
        kind, value = _shape(annotation, (width, height))
        value = value or {'x': x, 'y': y, 'width': w, 'height': h, 'rotation': 0}
        results = region(kind, annotation.name, value, **more)
        yield results
        names, _ = dataset.keypoints_of(annotation.name)
        for name, (left, top, seen) in zip(names, np.reshape(annotation.keypoints or [], (-1, 3)).tolist()):
            if seen:
                point = {'x': 100 * left / width, 'y': 100 * top / height, 'width': 0.5}
                yield region('keypointlabels', name, point, parentID=results['id'])


def _shape(annotation: Annotation, size: tuple[int, int]) -> tuple[str, dict[str, Any]]:
    """Returns the kind of a region, and its value; an empty one for a box."""
    if annotation.segmentation is None:
        return 'rectanglelabels', {}
    if isinstance(annotation.segmentation, list) and len(annotation.segmentation) == 1:
        points = np.reshape(annotation.segmentation[0], (-1, 2)) * 100 / size
        return 'polygonlabels', {'points': points.tolist(), 'closed': True}
    return 'brushlabels', {'format': 'rle', 'rle': encode_brush(mask_of(annotation.segmentation, size))}
