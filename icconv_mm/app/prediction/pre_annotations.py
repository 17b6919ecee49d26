"""Writes predictions as annotations to correct in another tool."""

import logging
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mmengine.logging import print_log

from icconv_mm.app.annotations.door import read_dataset
from icconv_mm.app.prediction.coco_results import CocoResults, write_parts
from icconv_mm.errors import ArgumentError
from icconv_mm_runtime.thresholds import KEYPOINT_SCORE, reaches

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
    to: str, part: CocoResults, rows: Callable[[], Iterable[dict]], folder: Path, copy: bool
) -> bool:
    """Writes the drawn objects of a task for another tool; returns whether there are any. Logs what its format lacks.

    Args:
        to: ``'coco'``, ``'yolo'``, ``'labelstudio'`` or ``'cvat'``.
        part: The task.
        rows: Returns the rows of the images, of which ``drawn`` has the entries of the drawn objects by task.
        folder: A new folder.
        copy: Whether images are copied; else they are linked.
    """

    def drawn() -> Iterator[dict]:
        for row in rows():
            yield {**row, 'path': str(Path(row['path']).absolute()), 'records': {part.name: row['drawn'][part.name]}}

    if not any(row['records'][part.name] for row in drawn()):
        print_log(f'{folder}: not written, as no object scores as much as those that are drawn', 'current')
        return False
    with tempfile.TemporaryDirectory() as temporary:
        written = write_parts(Path(temporary), [part], lambda: map(_as_drawn, drawn()), whole_paths=True)
        dataset = read_dataset(next(path for key, path in written.items() if key.startswith('predictions')))
        getattr(dataset, f'to_{to}')(folder, copy=copy)
    for _, message, _ in dataset.warnings:
        print_log(f'{folder}: {message}', 'current', logging.WARNING)
    return True


def _as_drawn(row: dict) -> dict:
    return {**row, 'records': {name: list(map(_drawn, records)) for name, records in row['records'].items()}}


def _drawn(record: Mapping[str, Any]) -> dict[str, Any]:
    """Returns an object as it is drawn: without an empty mask, and with all keypoints that are drawn."""
    from pycocotools.mask import area

    drawn = dict(record)
    if 'segmentation' in drawn and not area(drawn['segmentation']):
        del drawn['segmentation']
    if points := drawn.get('keypoints'):
        drawn['keypoints'] = [float(reaches(v, KEYPOINT_SCORE)) if k % 3 == 2 else v for k, v in enumerate(points)]
    return drawn
