"""What must hold between a network for several tasks and its data, checked before the first step."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from icconv_mm.datasets.checks import DatasetError
from icconv_mm.datasets.nesting import datasets_in
from icconv_mm.errors import InputError
from icconv_mm.tasks.multitask.dataset import MultiTaskDataset
from icconv_mm.tasks.multitask.model import MultiTaskModel
from icconv_mm.tasks.multitask.sharing import each_map
from icconv_mm.tasks.multitask.transforms import PackTaskInputs, WarpPeople
from icconv_mm.utils.config_tree import as_list

# Of mmdet: they move the image and do not record how, so that keypoints stay behind.
_UNRECORDED = ('Expand', 'MinIoURandomCrop', 'RandomShift', 'CopyPaste', 'CutMix', 'MixUp', 'Mosaic', 'YOLOXMixUp')
_PROBE = 128  # pixels: enough for every level to have some


def check_model(model: MultiTaskModel, dataset: Any, where: str, training: bool) -> None:
    """Raise InputError if tasks, classes, keypoints or levels of features do not agree.

    Args:
        model: The network.
        dataset: A :class:`MultiTaskDataset`, or a concatenation of some.
        where: Name of the dataset in the config.
        training: Whether every task needs labels.
    """
    labels: Mapping[str, dict] = dataset.metainfo
    tasks = ', '.join(model.tasks)
    for name, meta in labels.items():
        if name not in model.tasks:
            raise InputError(f'{where}: labels for {name!r}, but model.tasks has no such task: {tasks}')
        _check_sizes(model.tasks[name], meta, name, where)
    for name in model.tasks:
        if training and name not in labels:
            raise InputError(f'model.tasks.{name}: {where} has no labels for it, only for {", ".join(labels)}')
    for place, each in datasets_in(dataset, where):
        if isinstance(each, MultiTaskDataset):
            _check_packed(each, place)
            check_people(each, place)
    if training:
        check_levels(model)


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


def _check_sizes(task: nn.Module, meta: Mapping[str, Any], name: str, where: str) -> None:
    """Classes and keypoints of the heads against those of the data."""
    classes, count = meta.get('classes'), meta.get('num_keypoints')
    for path, module in task.named_modules():
        last = path.rpartition('.')[2]
        is_head = last.endswith('head') and last != 'rpn_head'
        found = getattr(module, 'num_classes', None)
        if classes and is_head and isinstance(found, int) and found != len(classes):
            raise InputError(
                f'model.tasks.{name}.{path}.num_classes is {found}, but {where} has {len(classes)} classes: '
                f'{", ".join(map(str, classes[:8]))}{", ..." if len(classes) > 8 else ""}'
            )
        found = getattr(module, 'num_keypoints', None)
        if count and isinstance(found, int) and found != count:
            raise InputError(f'model.tasks.{name}.{path}.num_keypoints is {found}, but {where} has {count} keypoints')


def check_levels(model: MultiTaskModel) -> None:
    """Raise InputError for a head that the levels of the neck do not fit, by a pass of one small image."""
    training = model.training
    parameter = next(model.parameters())
    model.eval()
    try:
        with torch.no_grad():
            features = model.extract_feat(parameter.new_zeros(1, 3, _PROBE, _PROBE))
    finally:
        model.train(training)
    if isinstance(features, Tensor):
        features = [features]
    channels = []
    for level in features:
        own: list[int] = []
        each_map(lambda value, own=own: own.append(value.shape[1]) or value, level)
        channels.append(own[0])
    for name, task in model.tasks.items():
        if getattr(task, 'neck', None) is None:
            for path, module in task.named_modules():
                for problem in _misfits(module, channels):
                    giver = 'backbone' if model.neck is None else 'neck'
                    raise InputError(
                        f'model.tasks.{name}.{path}: {problem}, but model.{giver} gives {len(channels)} levels of '
                        f'{", ".join(map(str, channels))} channels'
                    )


def _misfits(module: nn.Module, channels: list[int]) -> Iterator[str]:
    """What a head asks of the levels that they do not give; only for modules that say it as mmdet's and mmseg's do."""
    count = len(channels)
    index, joins = getattr(module, 'in_index', None), getattr(module, 'input_transform', None) == 'resize_concat'
    if index is not None:
        for i, wanted in zip(as_list(index), as_list(getattr(module, 'in_channels', None))):
            if not -count <= i < count:
                yield f'in_index {index} reads level {i}'
            elif isinstance(wanted, int) and not joins and channels[i] != wanted:
                yield f'in_channels is {wanted} for level {i}'
    generator = getattr(module, 'prior_generator', None)
    if generator is not None and hasattr(generator, 'strides'):
        if len(generator.strides) != count:
            yield f'its priors are for {len(generator.strides)} levels'
        if getattr(module, 'in_channels', channels[0]) != channels[0]:
            yield f'in_channels is {module.in_channels}'
    if hasattr(module, 'featmap_strides'):
        if len(module.featmap_strides) > count:
            yield f'featmap_strides are for {len(module.featmap_strides)} levels'
        if getattr(module, 'out_channels', channels[0]) != channels[0]:
            yield f'out_channels is {module.out_channels}'


def check_people(dataset: MultiTaskDataset, where: str) -> None:
    """Raise DatasetError unless the people of a joined set are instances of it, by the ids of their annotations.

    Only where the labels of two tasks are COCO files: one that has keypoints, one that has none.
    """
    files = {name: getattr(each, 'ann_file', None) for name, each in dataset.datasets.items()}
    people = [name for name in files if 'num_keypoints' in dataset.datasets[name].metainfo]
    others = [name for name in files if name not in people and str(files[name]).endswith('.json')]
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
