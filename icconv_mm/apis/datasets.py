"""The datasets of a config: checked before and after they are built, and explained where building fails."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.runner import Runner
from torch.utils.data import Dataset

from icconv_mm.datasets.checks import (
    DatasetError,
    MissingDataError,
    check_coco_file,
    check_measures,
    check_paths,
    explain_coco,
    join_root,
)
from icconv_mm.datasets.nesting import leaf_datasets, phase_datasets
from icconv_mm.engine.checkpoint_match_hook import unwrapped
from icconv_mm.errors import InputError, UserError, building, naming
from icconv_mm.tasks.base import TaskAdapter
from icconv_mm.utils.config_tree import dicts_in, kind_of
from icconv_mm.utils.files import require_file

# What BaseDataset of mmengine says when no entry is left.
_NOTHING_LEFT = 'need at least one array to concatenate'


def check_data_paths(cfg: Config, *phases: str) -> None:
    """Raise MissingDataError for a path that does not exist in the datasets and metrics of the phases."""
    for where, dataset in phase_datasets(cfg, *phases):
        with naming(where, TypeError):  # a number in the place of a path
            check_paths(dataset, where)
    for where, metric in _metrics_on_files(cfg, *phases):
        require_file(metric['ann_file'], where, MissingDataError)


def _metrics_on_files(cfg: Config, *phases: str) -> Iterator[tuple[str, dict]]:
    """The configs of the metrics that read an annotation file, also inside of others, after the name of the file."""
    for phase in phases:
        for metric in dicts_in(cfg.get(f'{phase}_evaluator')):
            if metric.get('ann_file'):
                yield f'{phase}_evaluator.ann_file', metric


def build_loop(runner: Runner, task: TaskAdapter, phase: str) -> None:
    """Build the loop of a phase (``'train'``, ``'val'``, ``'test'``), if there is one: its dataset and its metrics.

    Raises:
        DatasetError, InputError: As for :func:`build_dataset`; or the model cannot take what the dataset gives.
    """
    for where, cfg in phase_datasets(runner.cfg, phase):
        built = build_dataset(lambda: getattr(runner, f'{phase}_loop').dataloader.dataset, cfg, task, where)
        task.check_model(unwrapped(runner.model), built, where, training=phase == 'train')


def build_dataset(build: Callable[[], Dataset], cfg: Mapping[str, Any], task: TaskAdapter, where: str) -> Dataset:
    """What ``build`` returns, which is the dataset of ``cfg``; ``where`` is its name in the whole config.

    Raises:
        DatasetError: An annotation file is not what the dataset reads, no image is left, or labels are wrong.
        InputError: It cannot be built for another reason.
    """
    try:
        with building(where):
            dataset = build()
    except InputError as error:
        for name, leaf in leaf_datasets(cfg, where):
            if leaf.get('ann_file') and task.is_coco(leaf['type']):
                path = join_root(leaf.get('data_root') or '', leaf['ann_file'])
                explain_coco(path, task.classes(leaf), name, empty=_NOTHING_LEFT in str(error))
        raise
    for name, leaf in leaf_datasets(dataset, where):
        if len(leaf) == 0:
            raise DatasetError(f'{name}: the dataset is empty')
        task.check_dataset(leaf, name)
    return dataset


@contextmanager
def explaining_metrics(cfg: Config) -> Iterator[None]:
    """Where an evaluation fails, say so if the annotations that it is made against are the reason.

    Raises:
        DatasetError: They lack what COCO's metrics need, or are not in COCO format.
    """
    try:
        yield
    except UserError:
        raise
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, RecursionError):
        for where, metric in _metrics_on_files(cfg, 'val', 'test'):
            if 'Coco' in kind_of(metric) and Path(metric['ann_file']).is_file():
                with naming(where):
                    check_measures(check_coco_file(metric['ann_file']), metric['ann_file'])
        raise
