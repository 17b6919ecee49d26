"""Checks of a network for several tasks against its data, before the first step."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from icconv_mm.config_tree import datasets_in
from icconv_mm.datasets.checks import DatasetError
from icconv_mm.errors import InputError
from icconv_mm.tasks.check_levels import check_levels, has_filters, levels_of
from icconv_mm.tasks.libraries import library_of
from icconv_mm.tasks.multitask.data import MultiTaskDataset
from icconv_mm.tasks.multitask.model import MultiTaskModel
from icconv_mm.tasks.multitask.transforms import LoadTaskAnnotations, PackTaskInputs, WarpPeople

# Transforms of the libraries that do not move pixels, beside those that load, pack or change colours.
_STILL = (
    *('Pad', 'Normalize', 'RandomGrayscale', 'RGB2Gray', 'CLAHE', 'AdjustGamma', 'GaussianBlur', 'Corrupt'),
    *('PhotoMetricDistortion', 'PhotometricDistortion', 'YOLOXHSVRandomAug', 'ColorJitter', 'Lighting'),
    *('CutOut', 'RandomCutOut', 'RandomErasing'),
)
_STILL_MODULES = ('loading', 'formatting', 'colorspace')
# mmdet's: they move all annotations and record how they moved the image, by which WarpPeople moves keypoints.
_RECORDED = (
    *('Resize', 'FixScaleResize', 'FixShapeResize', 'RandomFlip', 'RandomCrop'),
    *('Rotate', 'ShearX', 'ShearY', 'TranslateX', 'TranslateY'),
)
# Those that move boxes, masks and segmentation maps, but record nothing.
_UNRECORDED = {'mmcv': ('Resize', 'RandomFlip', 'CenterCrop'), 'mmdet': ('Expand', 'MinIoURandomCrop')}
_LIBRARIES = ('mmcv', 'mmdet', 'mmseg', 'mmpose', 'mmpretrain')


def check_model(model: MultiTaskModel, dataset: Any, where: str, training: bool) -> None:
    """Raises InputError if tasks, annotations or feature levels do not agree; ``training`` needs all annotations.

    ``dataset`` is a :class:`MultiTaskDataset`, or a concatenation of some.
    """
    labels: Mapping[str, dict] = dataset.metainfo
    tasks = ', '.join(model.tasks)
    for name in labels:
        if name not in model.tasks:
            raise InputError(f'{where}: annotations for {name!r}, but model.tasks has no such task: {tasks}')
    for name in model.tasks:
        if training and name not in labels:
            raise InputError(f'model.tasks.{name}: {where} has no annotations for it, only for {", ".join(labels)}')
    for location, node in datasets_in(dataset, where):
        if isinstance(node, MultiTaskDataset):
            packs = [t for t in node.pipeline.transforms if isinstance(t, PackTaskInputs)]
            if not packs:
                raise InputError(f'{location}.pipeline: no icconv_mm.PackTaskInputs')
            _check_moves(node.pipeline.transforms, packs[0], f'{location}.pipeline')
            for name in node.datasets:
                if name not in packs[0].packs:
                    names = ', '.join(packs[0].packs)
                    raise InputError(f'{location}.pipeline: icconv_mm.PackTaskInputs packs {names}, but not {name}')
            check_people_are_instances(node, location)
    if training and has_filters(model):
        levels, giver = levels_of(model), 'backbone' if model.neck is None else 'neck'
        for name, task in model.tasks.items():
            if getattr(task, 'neck', None) is None:
                check_levels(task, levels, f'model.tasks.{name}', f'model.{giver}')


def _check_moves(transforms: Sequence[Callable], pack: PackTaskInputs, where: str) -> None:
    """Raises InputError if a transform moves the image but not its keypoints or segmentation maps.

    Transforms from outside the libraries are not checked.
    """
    loads = [i for i, transform in enumerate(transforms) if isinstance(transform, LoadTaskAnnotations)]
    if any(isinstance(step, WarpPeople) for transform in pack.packs.values() for step in transform.transforms):
        behind = 'keypoints'
    elif loads and any(getattr(load, 'with_seg', False) for load in transforms[loads[0]].loaders.values()):
        behind, transforms = 'segmentation maps', transforms[loads[0] :]
    else:
        return
    for kind in map(type, _leaves(transforms)):
        library, *_, module = kind.__module__.split('.')
        still = kind.__name__ in _STILL or module in _STILL_MODULES
        if still or library not in _LIBRARIES or (library == 'mmdet' and kind.__name__ in _RECORDED):
            continue
        if behind == 'keypoints' or kind.__name__ not in _UNRECORDED.get(library, ()):
            raise InputError(
                f'{where}: {kind.__name__} of {library} moves the image, and {behind} stay behind; those of mmdet that '
                f"take them along (type='mmdet.Resize') are {', '.join(_RECORDED)}"
            )


def _leaves(transforms: Iterable[Callable]) -> Iterator[Callable]:
    """Yields the transforms inside others that choose among several (RandomChoice) or configure one (RandomResize)."""
    for transform in transforms:
        inner = getattr(transform, 'transforms', None) or [getattr(transform, 'resize', None)]
        if all(callable(leaf) for leaf in inner):
            yield from _leaves(inner)
        else:
            yield transform


def check_people_are_instances(dataset: MultiTaskDataset, where: str) -> None:
    """Raises DatasetError if people of a joined dataset are not instances of it, by their annotation ids.

    Checked only if the dataset has boxes of mmdet as well.
    """
    files = {name: getattr(dataset, 'ann_file', None) for name, dataset in dataset.datasets.items()}
    people = [name for name in files if 'num_keypoints' in dataset.datasets[name].metainfo]
    others = [name for name in files if name not in people and library_of(type(dataset.datasets[name])) == 'mmdet']
    if not people or not others:
        return
    instances = _annotation_ids(files[others[0]])
    for name in people:
        ids = _annotation_ids(files[name])
        if strangers := sorted(ids - instances):
            raise DatasetError(
                f'{where}.datasets.{name}.ann_file: {len(strangers)} of the {len(ids)} annotation ids of {files[name]} '
                f'are not in {files[others[0]]} (the first: {strangers[0]}): the files are of different versions'
            )


def _annotation_ids(path: str) -> set[int]:
    with open(path, 'rb') as file:
        return {annotation['id'] for annotation in json.load(file)['annotations']}
