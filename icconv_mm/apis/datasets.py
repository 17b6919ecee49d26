"""The datasets of a config: checked before, while and after they are built."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from mmengine.config import Config
from mmengine.runner import Runner

from icconv_mm.datasets.checks import (
    DatasetError,
    check_coco_file,
    check_file,
    check_paths,
    explain_empty,
    join_root,
    leaf_datasets,
)
from icconv_mm.errors import InputError, building
from icconv_mm.tasks.base import Task


def check_dataloader_paths(cfg: Config, *phases: str) -> None:
    """Raise DatasetError for a path that does not exist in the datasets and metrics of the phases."""
    for phase in phases:
        loader = cfg.get(f'{phase}_dataloader')
        if loader:
            check_paths(loader.dataset, f'{phase}_dataloader.dataset')
        evaluator = cfg.get(f'{phase}_evaluator') or []
        for metric in evaluator if isinstance(evaluator, (list, tuple)) else [evaluator]:
            if metric.get('ann_file'):
                check_file(metric['ann_file'], f'{phase}_evaluator.ann_file')


def build_loop(runner: Runner, task: Task, phase: str) -> None:
    """Build the loop of a phase (``'train'``, ``'val'``, ``'test'``) and with it the dataset and the metrics.

    Raises:
        DatasetError: The annotation file is not what the dataset reads, or no picture is left.
        InputError: Another part of the loop cannot be built.
    """
    where = f'{phase}_dataloader.dataset'
    cfg = runner.cfg.get(f'{phase}_dataloader')
    if not cfg:
        return
    with explaining(cfg.dataset, task, where), building(where):
        loop = getattr(runner, f'{phase}_loop')
    check_dataset(loop.dataloader.dataset, cfg.dataset, task, where)


@contextmanager
def explaining(cfg: dict, task: Task, where: str) -> Iterator[None]:
    """If building a dataset fails here and its annotation file is the reason, raise DatasetError that says so."""
    try:
        yield
    except InputError as error:
        for name, leaf in leaf_datasets(cfg, where):
            if leaf.get('ann_file') and task.is_coco(leaf['type']):
                path = join_root(leaf.get('data_root') or '', leaf['ann_file'])
                _explain_coco(path, task.classes(leaf), name, empty=_NOTHING_LEFT in str(error))
        raise


# What BaseDataset of mmengine says when no entry is left.
_NOTHING_LEFT = 'need at least one array to concatenate'


def _explain_coco(path: str, classes: Sequence[str], name: str, empty: bool) -> None:
    if '://' in path:
        return
    try:
        check_coco_file(path)
    except DatasetError as error:
        raise DatasetError(f'{name}.ann_file: {error}') from None
    if empty:
        explain_empty(path, classes, name)


def check_dataset(dataset: Any, cfg: dict, task: Task, where: str) -> None:
    """Raise DatasetError for a dataset that was built but is empty or mislabelled."""
    for name, leaf in _leaves(dataset, cfg, where):
        if len(leaf) == 0:
            raise DatasetError(f'{name}: the dataset is empty')
        task.check_dataset(leaf, name)


def _leaves(dataset: Any, cfg: dict, name: str) -> Iterator[tuple[str, Any]]:
    """Datasets that read files, below the wrappers."""
    if isinstance(cfg.get('dataset'), dict):
        yield from _leaves(dataset.dataset, cfg['dataset'], f'{name}.dataset')
    elif isinstance(cfg.get('datasets'), (list, tuple)):
        for i, (part, part_cfg) in enumerate(zip(dataset.datasets, cfg['datasets'], strict=True)):
            yield from _leaves(part, part_cfg, f'{name}.datasets[{i}]')
    else:
        yield name, dataset
