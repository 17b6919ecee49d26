"""A run that stops and resumes draws the same random numbers as one that does not."""

import numpy as np
import pytest
import torch
from mmengine.dataset import BaseDataset
from mmengine.evaluator import Evaluator
from mmengine.model import BaseModel
from mmengine.runner import Runner
from saving import losses_of
from torch.utils.data import DataLoader

from icconv_mm.engine.randomness import ResumableRandomnessHook


class Mixing:
    """Mixes a sample with those before it, as mmdet's ``CachedMosaic`` does."""

    def __init__(self):
        self.results_cache = []

    def __call__(self, item):
        self.results_cache.append(item['inputs'])
        return {'inputs': torch.stack(self.results_cache).mean(0)}


class Noise(BaseDataset):
    """Six samples, each of them noise that is drawn anew whenever it is asked for, mixed with those before it."""

    def __init__(self):
        super().__init__(pipeline=[Mixing()])

    def load_data_list(self):
        return [{'index': i} for i in range(6)]

    def prepare_data(self, idx):
        return self.pipeline({'inputs': torch.tensor([float(idx), np.random.rand(), torch.rand(()).item()])})


class Model(BaseModel):
    """Its loss is a digest of the data and of a number that it draws itself."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(3))

    def forward(self, inputs, mode='tensor'):
        inputs = torch.stack(inputs) if isinstance(inputs, (list, tuple)) else inputs
        digest = (inputs * self.weight).sum() + torch.rand(()) + np.random.rand()
        return [digest] if mode == 'predict' else {'loss': digest}


class Nothing(Evaluator):
    """Validation draws random numbers, but measures nothing."""

    def __init__(self):
        super().__init__([])

    def process(self, data_samples, data_batch=None):
        pass


@pytest.fixture(autouse=True)
def _no_environment_report(monkeypatch):
    monkeypatch.setattr('mmengine.runner.runner.collect_env', dict)  # it starts several compilers


def run(folder, by_epoch, workers, total, resume=False, hook=True, seed=3):
    """Train for ``total`` epochs, or three times as many iterations; returns the loss of every iteration."""
    loader = dict(
        dataset=Noise(),
        batch_size=2,
        num_workers=workers,
        persistent_workers=workers > 0,
        sampler=dict(type='DefaultSampler' if by_epoch else 'InfiniteSampler', shuffle=True),
    )
    val = dict(dataset=Noise(), batch_size=2, sampler=dict(type='DefaultSampler', shuffle=False))
    train_cfg = dict(by_epoch=True, max_epochs=total) if by_epoch else dict(by_epoch=False, max_iters=3 * total)
    runner = Runner(
        model=Model(),
        work_dir=str(folder),
        train_dataloader=loader,
        train_cfg={**train_cfg, 'val_interval': 1 if by_epoch else 3},
        val_dataloader=val,
        val_cfg=dict(),
        val_evaluator=Nothing(),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.01, momentum=0.9)),
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', by_epoch=by_epoch, interval=1 if by_epoch else 3)),
        custom_hooks=[ResumableRandomnessHook()] if hook else None,
        randomness=dict(seed=seed),
        resume=resume,
        experiment_name=f'{folder.name}_{resume}_{total}',
        log_level='ERROR',
    )
    return losses_of(runner)


@pytest.mark.parametrize('by_epoch', [True, False])
@pytest.mark.parametrize('workers', [0, pytest.param(2, marks=pytest.mark.slow)])
def test_resumed_run_equals_an_uninterrupted_one(tmp_path, by_epoch, workers):
    whole = run(tmp_path / 'whole', by_epoch, workers, total=4)
    first = run(tmp_path / 'parts', by_epoch, workers, total=2)
    second = run(tmp_path / 'parts', by_epoch, workers, total=4, resume=True)
    assert len(whole) == 12
    assert first + second == whole


@pytest.mark.parametrize('by_epoch', [True, False])
def test_nothing_changes_before_the_first_checkpoint(tmp_path, by_epoch):
    with_hook = run(tmp_path / 'with', by_epoch, 0, total=2)
    without = run(tmp_path / 'without', by_epoch, 0, total=2, hook=False)
    assert with_hook[:3] == without[:3]
    assert with_hook[3:] != without[3:]


@pytest.mark.slow
def test_epochs_and_seeds_differ(tmp_path):
    """mmengine seeds workers alike in every epoch; this hook does not."""
    losses = run(tmp_path / 'a', True, 1, total=3)
    other = run(tmp_path / 'b', True, 1, total=3, seed=4)
    assert len(set(losses + other)) == 18


def test_skipping_leaves_the_generators_where_loading_does():
    """``skip_iter`` is how onedl-mmengine resumes."""
    from icconv_mm.engine.randomness import _RestartingIterator

    def draws():
        while True:
            yield np.random.rand()

    loaded = _RestartingIterator(draws(), 3, seed=1, loader=DataLoader([]))
    expected = [next(loaded) for _ in range(9)][6:]
    np.random.seed(99)
    skipped = _RestartingIterator(draws(), 3, seed=1, loader=DataLoader([]))
    skipped.skip_iter(6)
    assert [next(skipped) for _ in range(3)] == expected


def test_bad_interval():
    with pytest.raises(ValueError, match='interval must be positive, got 0'):
        ResumableRandomnessHook(interval=0)
