"""Writes COCO: objects with boxes, masks and keypoints, and segmentation maps as panoptic files."""

import itertools
import os
import tempfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from icconv_mm.app.annotations.dataset import AnnotatedImage, Annotation, Converted, Dataset
from icconv_mm.app.annotations.map_conversion import IGNORED, convert_seg_maps, map_path, read_class_ids
from icconv_mm.app.annotations.writers.images import into_new_folder, place_images, usable_images
from icconv_mm.files import write_json


@into_new_folder
def write_coco(dataset: Dataset, folder: Path, copy: bool = False) -> Path:
    """Writes ``annotations/instances_SPLIT.json``, ``annotations/panoptic_SPLIT.json`` with its PNGs, and ``images``.

    Panoptic files are written if there are segmentation maps; each class of a map is one segment, a region without
    instances.

    Args:
        dataset: The dataset.
        folder: A new or empty folder.
        copy: Whether images are copied; else they are linked.

    Raises:
        ArgumentError: The folder is not empty, or the dataset has only classes of whole images.
    """
    tasks = dataset.tasks()
    images = usable_images(dataset, 'COCO', 'detection', 'semantic')
    names = place_images(images, folder / 'images', copy)
    for split in sorted({image.split for image in images}):
        images_of_split = [image for image in images if image.split == split]
        entries = {
            image.path: _image(number, image, names[image.path]) for number, image in enumerate(images_of_split, 1)
        }
        ending = f'_{split}' if split else ''
        if 'detection' in tasks:
            labelled = [image for image in images_of_split if image.annotations is not None]
            numbers = itertools.count(1)
            content = {
                'images': [entries[image.path] for image in labelled],
                'annotations': [
                    {'id': next(numbers), 'image_id': entries[image.path]['id'], **_object(dataset, annotation)}
                    for image in labelled
                    for annotation in image.annotations
                ],
                'categories': list(_categories(dataset)),
            }
            write_json(folder / 'annotations' / f'instances{ending}.json', content)
    if 'semantic' in tasks:
        _write_panoptic(dataset, images, names, folder / 'annotations')
    return folder


def _image(number: int, image: AnnotatedImage, name: Path) -> dict[str, Any]:
    width, height = image.size
    return {'id': number, 'file_name': name.as_posix(), 'width': width, 'height': height}


def _categories(dataset: Dataset) -> Iterable[dict[str, Any]]:
    posed = {annotation.name for _, annotation in dataset.annotations() if annotation.keypoints is not None}
    for number, name in enumerate(dataset.classes, 1):
        category = {'id': number, 'name': name, 'supercategory': ''}
        if name in posed:
            keypoints, skeleton = dataset.keypoints_of(name)
            category |= {'keypoints': keypoints, 'skeleton': [[a + 1, b + 1] for a, b in skeleton]}
        yield category


def _object(dataset: Dataset, annotation: Annotation) -> dict[str, Any]:
    entry = {
        'category_id': dataset.classes.index(annotation.name) + 1,
        'bbox': annotation.box,
        'area': annotation.area,
        'iscrowd': int(annotation.crowd),
        'segmentation': annotation.segmentation or [],
    }
    if annotation.keypoints is not None:
        entry |= {'keypoints': annotation.keypoints, 'num_keypoints': sum(v > 0 for v in annotation.keypoints[2::3])}
    return entry if annotation.score is None else entry | {'score': annotation.score}


def _write_panoptic(dataset: Dataset, images: list[AnnotatedImage], names: dict[Path, Path], folder: Path) -> None:
    images_with_maps = [replace(image) for image in images if image.seg_map is not None]  # their maps are replaced
    converted = Converted('semantic', Path(os.path.commonpath([image.path.parent for image in images_with_maps])))
    with tempfile.TemporaryDirectory() as temporary:
        ignored = set(dataset.ignore_index)
        images_with_maps = convert_seg_maps(
            dataset, converted, images_with_maps, Path(temporary), None, ignored, thorough=True
        )
        categories = [{'id': i, 'name': name, 'isthing': 0} for i, name in enumerate(converted.classes, 1)]
        for split in sorted({image.split for image in images_with_maps}):
            name = f'panoptic_{split}' if split else 'panoptic'
            entries, annotations, taken = [], [], set()
            for number, image in enumerate((image for image in images_with_maps if image.split == split), 1):
                labels = read_class_ids(image.seg_map).astype(np.uint8)
                path = map_path(folder / name / names[image.path], taken)
                path.parent.mkdir(parents=True, exist_ok=True)
                pixels = np.zeros((*labels.shape, 3), np.uint8)
                pixels[..., 0] = labels + 1  # 255, which is ignored, becomes 0
                Image.fromarray(pixels).save(path)
                entries.append(_image(number, image, names[image.path]))
                counts = np.bincount(labels.ravel(), minlength=IGNORED)[:IGNORED]
                segments = [
                    {'id': label + 1, 'category_id': label + 1, 'area': int(counts[label]), 'iscrowd': 0}
                    for label in np.flatnonzero(counts).tolist()
                ]
                file_name = path.relative_to(folder / name).as_posix()
                annotations.append({'image_id': number, 'file_name': file_name, 'segments_info': segments})
            content = {'images': entries, 'annotations': annotations, 'categories': categories}
            write_json(folder / f'{name}.json', content)
