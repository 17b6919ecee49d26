"""Builds the model of a run, and its pipeline of test images, for predictions and exports."""

from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, init_default_scope
from torch import nn

from icconv_mm.app.runs.config import TaskRun
from icconv_mm.config_tree import kind_of, walk_dicts
from icconv_mm.errors import InputError, naming
from icconv_mm.tasks.libraries import NO_LIBRARY


def build_model(run: TaskRun) -> nn.Module:
    """Builds the model of a run of any task library, without weights; changes the config in place.

    Raises:
        InputError: A part of the config cannot be built.
    """
    init_default_scope('mmengine' if run.scope in NO_LIBRARY else run.scope)
    with naming(run.name, Exception):
        return revert_sync_batchnorm(MODELS.build(without_own_weights(run.cfg)))


def without_own_weights(cfg: Config) -> dict:
    """Returns ``cfg.model`` without pretrained weights of its parts, because a checkpoint holds all weights."""
    cfg.model.pop('pretrained', None)
    for node in walk_dicts(cfg.model):
        node.pop('init_cfg', None)
    if cfg.get('data_preprocessor'):  # mmpretrain's configs have it beside the model
        cfg.model.setdefault('data_preprocessor', cfg.data_preprocessor)
    return cfg.model


def inference_transforms(run: TaskRun) -> list[dict]:
    """Returns the transforms of the test dataset without those that load annotations."""
    datasets = run.datasets['test'] or run.datasets['val']
    if not datasets:
        raise InputError(f'{run.name}: no test_dataloader, which says how images are prepared')
    transforms = next((each.pipeline for each in datasets if each.pipeline), None)
    if transforms is None:
        raise InputError(f'{run.name}: no pipeline in the dataset of the test_dataloader')
    kinds = map(kind_of, transforms)
    labels = ('Annotations', 'SegMap')
    return [t for t, kind in zip(transforms, kinds) if not (kind.startswith('Load') and kind.endswith(labels))]
