"""Writes predictions as annotations to correct in another tool."""

import logging
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mmengine.logging import print_log

from icconv_mm.annotations.door import read_dataset
from icconv_mm.errors import ArgumentError
from icconv_mm.runner.coco_results import CocoResults
from icconv_mm_runtime.drawing import KEYPOINT_SCORE, threshold_of

_FORMATS = ('coco', 'yolo', 'labelstudio', 'cvat')
_KINDS = ('detection', 'instance', 'pose')


def folders_for(to: str, parts: Iterable[CocoResults], out: Path) -> dict[str, Path]:
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
    to: str,
    part: CocoResults,
    images: Mapping[Path, Mapping[str, Any]],
    folder: Path,
    score_thr: float | None,
    copy: bool,
) -> bool:
    """Writes the predictions of a task for another tool, logs what its format cannot hold, and returns whether any is.

    Args:
        to: ``'coco'``, ``'yolo'``, ``'labelstudio'`` or ``'cvat'``.
        part: The predictions.
        images: Information about each image.
        folder: A new folder.
        score_thr: Lowest score of an object that is written; None for that of each drawn class.
        copy: Whether images are copied; else they are linked.
    """
    with tempfile.TemporaryDirectory() as temporary:
        own = {path.absolute(): dict(about, file_name=str(path.absolute())) for path, about in images.items()}
        ids = _by_absolute(part.image_ids)
        renamed = CocoResults(part.name, part.adapter, part.description, ids, part.category_ids)
        least = {
            category: threshold_of(part.description, label) if score_thr is None else score_thr
            for label, category in enumerate(part.category_ids)
        }
        numbers = {part.image_ids[path] for path in images}
        shown = (each for each in part.records if each['score'] >= least[each['category_id']])
        renamed.records.extend(_drawn(each) for each in shown if each['image_id'] in numbers)
        if not renamed.records:
            print_log(f'{folder}: not written, as no object scores as much as those that are drawn', 'current')
            return False
        written = renamed.write(Path(temporary), own)
        dataset = read_dataset(next(path for key, path in written.items() if key.startswith('predictions')))
        getattr(dataset, f'to_{to}')(folder, copy=copy)
    for _, message in dataset.warnings:
        print_log(f'{folder}: {message}', 'current', logging.WARNING)
    return True


def _drawn(record: Mapping[str, Any]) -> dict[str, Any]:
    """Returns an object as it is drawn: without an empty mask, and with all keypoints that are drawn."""
    from pycocotools.mask import area

    drawn = dict(record)
    if 'segmentation' in drawn and not area(drawn['segmentation']):
        del drawn['segmentation']
    if points := drawn.get('keypoints'):
        drawn['keypoints'] = [float(v >= KEYPOINT_SCORE) if k % 3 == 2 else v for k, v in enumerate(points)]
    return drawn


def _by_absolute(numbers: Mapping[Path, int]) -> dict[Path, int]:
    return {path.absolute(): number for path, number in numbers.items()}
