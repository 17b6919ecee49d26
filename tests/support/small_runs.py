"""Configs of the smallest runs: one number learns. Imported, it registers what they name."""

import itertools
from pathlib import Path

from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.registry import DATASETS, METRICS, MODELS
from saving import Model, Numbers, Score

from icconv_mm.datasets.loading import ImageFileError

NUMBERS = itertools.count()
ERRORS = {kind.__name__: kind for kind in (ImageFileError, RuntimeError, KeyError)}


@DATASETS.register_module()
class FailingNumbers(Numbers):
    """Raises an error of the kind ``error`` for every item."""

    def __init__(self, error: str | None = None, length: int = 6, **kwargs) -> None:
        self.error, self.length = error, length
        super().__init__(**kwargs)

    def load_data_list(self):
        return super().load_data_list()[: self.length]

    def prepare_data(self, idx):
        if self.error is not None:
            raise ERRORS[self.error]('a.jpg: truncated')
        return super().prepare_data(idx)


@METRICS.register_module()
class CocoScore(BaseMetric):
    """Misses a field in the annotations."""

    def __init__(self, ann_file: str) -> None:
        super().__init__()

    def process(self, data_batch, data_samples):
        self.results.append(1)

    def compute_metrics(self, results):
        raise KeyError('area')


MODELS.register_module(name='SavingModel', module=Model, force=True)
METRICS.register_module(name='SavingScore', module=Score, force=True)


def loader(**settings) -> dict:
    dataset = {'type': 'FailingNumbers', **settings.pop('dataset', {})}
    return {'dataset': dataset, 'batch_size': 2, 'sampler': {'type': 'DefaultSampler', 'shuffle': False}, **settings}


def config(folder: Path, **changes) -> Config:
    """A config that trains and validates below a folder, with changes by keys that have ``__`` for a dot."""
    file = folder / 'c.py'
    file.touch()
    cfg = Config(
        {
            'default_scope': 'mmengine',
            'model': {'type': 'SavingModel'},
            'work_dir': str(folder),
            'train_dataloader': loader(),
            'train_cfg': {'by_epoch': False, 'max_iters': 2, 'val_interval': 1},
            'val_dataloader': loader(),
            'val_cfg': {},
            'val_evaluator': {'type': 'SavingScore'},
            'optim_wrapper': {'optimizer': {'type': 'SGD', 'lr': 0.1}},
            'default_hooks': {'checkpoint': None},
            'log_level': 'ERROR',
            'experiment_name': f'{folder.name}_{next(NUMBERS)}',
        },
        filename=str(file),
    )
    for key, value in changes.items():
        if '__' in key:
            cfg.merge_from_dict({key.replace('__', '.'): value})
        else:
            cfg[key] = value
    return cfg
