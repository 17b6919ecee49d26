"""Writes predictions as annotations to correct in another tool."""

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmengine.logging import print_log

from icconv_mm.app.annotations.convert import check_annotations
from icconv_mm.app.annotations.dataset import AnnotatedImage, Annotation, Dataset
from icconv_mm.app.annotations.door import AnnotatedDataset
from icconv_mm.app.annotations.find import remove_background
from icconv_mm.app.annotations.points import numbered, predicted_keypoints
from icconv_mm.app.annotations.segmentations import box_of_keypoints, fit_to_image
from icconv_mm.app.prediction.coco_results import TaskResults
from icconv_mm.errors import ArgumentError

_FORMATS = ('coco', 'yolo', 'labelstudio', 'cvat')
_KINDS = ('detection', 'instance', 'pose')


def folders_for(to: str, parts: Iterable[TaskResults], out: Path) -> dict[str, Path]:
    """Returns a new folder for each task with objects, by its name.

    Raises:
        ArgumentError: There is no such format or no such task, or a folder is not empty.
    """
    if to not in _FORMATS:
        raise ArgumentError('to', f'expected one of {", ".join(_FORMATS)}, got {to}')
    folders = {part.name: out / (f'{to}.{part.name}' if part.name else to) for part in parts if part.kind in _KINDS}
    if not folders:
        raise ArgumentError('to', 'the network predicts no boxes, masks or keypoints, which the other tools correct')
    for folder in folders.values():
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ArgumentError('out_dir', f'{folder} is not an empty folder: choose another')
    return folders


def write_pre_annotations(
    to: str, part: TaskResults, rows: Callable[[], Iterable[dict]], folder: Path, copy: bool
) -> bool:
    """Writes the drawn objects of a task for another tool; returns whether there are any. Logs what its format lacks.

    Args:
        to: ``'coco'``, ``'yolo'``, ``'labelstudio'`` or ``'cvat'``.
        part: The task.
        rows: Returns the rows of the images, of which ``drawn`` has the entries of the drawn objects by task.
        folder: A new folder.
        copy: Whether images are copied; else they are linked.
    """
    if not any(row['drawn'][part.name] for row in rows()):
        print_log(f'{folder}: not written, as no object scores as much as those that are drawn', 'current')
        return False
    dataset = _dataset(part, rows(), folder)
    getattr(dataset, f'to_{to}')(folder, copy=copy)
    for _, message in dataset.warnings:
        print_log(f'{folder}: {message}', 'current', logging.WARNING)
    return True


def _dataset(part: TaskResults, rows: Iterable[dict], folder: Path) -> AnnotatedDataset:
    """Returns the drawn objects of a task as a dataset."""
    dataset, description = AnnotatedDataset('COCO results', folder), part.description
    names = {number: name for number, name in zip(part.category_ids, description['classes']) if name.strip()}
    for name in names.values():
        dataset.add_class(name)
        if keypoints := description.get('keypoints'):
            links = [(int(a), int(b)) for a, b in description.get('skeleton') or ()]
            dataset.set_keypoints(name, list(map(str, keypoints)), links)
    for row in rows:
        image = dataset.image(Path(row['path']).absolute())
        if image.annotations is not None:  # a link to an image that is there
            continue
        image.annotations = []
        for record in row['drawn'][part.name]:
            where = f'{folder}: {image.path.name}'
            if (name := names.get(record['category_id'])) is None:
                dataset.leave_out(where, f'its category {record["category_id"]} has no name', image.path)
            elif (annotation := _annotation(record, name, image, dataset)) is not None:
                image.annotations.append(replace(annotation, location=where))
        written = row['image']['width'], row['image']['height']
        fit_to_image(dataset, image, written, folder)
    remove_background(dataset)
    check_annotations(dataset, list(dataset))
    return dataset


def _annotation(record: Mapping[str, Any], name: str, image: AnnotatedImage, dataset: Dataset) -> Annotation | None:
    """Returns an object as it is drawn, without an empty mask; None for a person none of whose keypoints is drawn."""
    from pycocotools.mask import area

    annotation = Annotation(name, record.get('bbox'), record.get('segmentation'), score=record['score'])
    if annotation.segmentation is not None and not area(annotation.segmentation):
        annotation.segmentation = None
    if points := record.get('keypoints'):
        if (keypoints := predicted_keypoints(points)) is None:
            return None
        dataset.keypoints = dataset.keypoints or numbered(len(points) // 3)
        annotation.keypoints = keypoints
        annotation.box = box_of_keypoints(annotation.keypoints, image.size)
    return annotation
