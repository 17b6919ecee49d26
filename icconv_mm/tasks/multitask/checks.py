"""What must hold between a network for several tasks and its data, checked before the first step."""

import json
from collections.abc import Mapping
from typing import Any

from icconv_mm.data.checks import DatasetError
from icconv_mm.data.tree import datasets_in
from icconv_mm.errors import InputError
from icconv_mm.tasks.levels import check_levels, has_filters, levels_of
from icconv_mm.tasks.multitask.data import MultiTaskDataset
from icconv_mm.tasks.multitask.model import MultiTaskModel
from icconv_mm.tasks.multitask.transforms import PackTaskInputs, WarpPeople
from icconv_mm.tasks.task import library_of

# Of mmdet: they move the image and do not record how, so that keypoints stay behind.
_UNRECORDED = ('Expand', 'MinIoURandomCrop', 'RandomShift', 'CopyPaste', 'CutMix', 'MixUp', 'Mosaic', 'YOLOXMixUp')


def check_model(model: MultiTaskModel, dataset: Any, where: str, training: bool) -> None:
    """Raise InputError if tasks, labels or levels of features do not agree.

    Args:
        model: The network.
        dataset: A :class:`MultiTaskDataset`, or a concatenation of some.
        where: Name of the dataset in the config.
        training: Whether every task needs labels.
    """
    labels: Mapping[str, dict] = dataset.metainfo
    tasks = ', '.join(model.tasks)
    for name in labels:
        if name not in model.tasks:
            raise InputError(f'{where}: labels for {name!r}, but model.tasks has no such task: {tasks}')
    for name in model.tasks:
        if training and name not in labels:
            raise InputError(f'model.tasks.{name}: {where} has no labels for it, only for {", ".join(labels)}')
    for place, each in datasets_in(dataset, where):
        if isinstance(each, MultiTaskDataset):
            _check_packed(each, place)
            check_people(each, place)
    if training and has_filters(model):
        _check_levels(model)


def _check_packed(dataset: MultiTaskDataset, where: str) -> None:
    packs = [t for t in dataset.pipeline.transforms if isinstance(t, PackTaskInputs)]
    if not packs:
        raise InputError(f'{where}.pipeline: no icconv_mm.PackTaskInputs')
    warps = any(isinstance(t, WarpPeople) for pack in packs[0].packs.values() for t in pack.transforms)
    for transform in dataset.pipeline.transforms:
        kind = type(transform).__name__
        if warps and kind.removeprefix('Cached') in _UNRECORDED:
            raise InputError(f'{where}.pipeline: {kind} does not record how it moves the image: keypoints stay behind')
    for name in dataset.datasets:
        if name not in packs[0].packs:
            known = ', '.join(packs[0].packs)
            raise InputError(f'{where}.pipeline: icconv_mm.PackTaskInputs packs {known}, but not {name}')


def _check_levels(model: MultiTaskModel) -> None:
    """Raise InputError for a head that the levels of the neck do not fit."""
    levels = levels_of(model)
    giver = 'backbone' if model.neck is None else 'neck'
    for name, task in model.tasks.items():
        if getattr(task, 'neck', None) is None:
            check_levels(task, levels, f'model.tasks.{name}', f'model.{giver}')


def check_people(dataset: MultiTaskDataset, where: str) -> None:
    """Raise DatasetError unless the people of a joined set are instances of it, by the ids of their annotations.

    Only where there are boxes of mmdet beside them.
    """
    files = {name: getattr(each, 'ann_file', None) for name, each in dataset.datasets.items()}
    people = [name for name in files if 'num_keypoints' in dataset.datasets[name].metainfo]
    others = [name for name in files if name not in people and library_of(type(dataset.datasets[name])) == 'mmdet']
    if not people or not others:
        return
    known = _annotation_ids(files[others[0]])
    for name in people:
        ids = _annotation_ids(files[name])
        if strangers := sorted(ids - known):
            raise DatasetError(
                f'{where}.datasets.{name}.ann_file: {len(strangers)} of the {len(ids)} annotation ids of {files[name]} '
                f'are not in {files[others[0]]} (the first: {strangers[0]}): the files are of different versions'
            )


def _annotation_ids(path: str) -> set[int]:
    with open(path, 'rb') as file:
        return {annotation['id'] for annotation in json.load(file)['annotations']}
