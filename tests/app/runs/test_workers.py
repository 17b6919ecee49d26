"""The processes that load images end with the run, not when the garbage collector finds the runner."""

import multiprocessing
import os
from types import SimpleNamespace

import pytest

pytest.importorskip('mmdet')

from icconv_mm.app.runs.workers import fit_workers
from icconv_mm.app.training.train import train
from icconv_mm.config_tree import walk

BY_EPOCH = {'by_epoch': True, 'max_epochs': 2, 'val_interval': 1}
BY_ITERATION = {'by_epoch': False, 'max_iters': 2, 'val_interval': 1}


@pytest.mark.parametrize('persistent', [False, True])
@pytest.mark.parametrize('loop', [BY_EPOCH, BY_ITERATION])
def test_no_worker_outlives_the_run(cfg, loop, persistent):
    workers = {'num_workers': 2, 'persistent_workers': persistent}
    config = cfg(default_scope='mmdet', train_cfg=loop)
    config.train_dataloader.update(workers)
    config.val_dataloader.update(workers)
    before = set(multiprocessing.active_children())
    runner = train(config)
    assert set(multiprocessing.active_children()) <= before
    assert len(list(runner.val_dataloader)) == 3  # the loader starts others


@pytest.mark.parametrize(
    ('megabytes', 'size', 'expected'),
    [(8000, 640, (8, 2)), (64, 640, (0, 2)), (64, 64, (8, 2)), (0.064, 64, (0, 0)), (200, 640, (3, 2))],
)
def test_as_many_workers_as_the_shared_memory_holds(monkeypatch, capsys, megabytes, size, expected):
    monkeypatch.setattr(os, 'statvfs', lambda path: SimpleNamespace(f_bavail=megabytes * 1000, f_frsize=1000))
    dataset = {'pipeline': [{'type': 'Resize', 'scale': (size, size)}]}
    loaders = {
        'train_dataloader': {'num_workers': 8, 'batch_size': 8, 'persistent_workers': True, 'prefetch_factor': 2},
        'val_dataloader': {'num_workers': 2, 'batch_size': 1, 'persistent_workers': True},
    }
    cfg = {name: {**loader, 'dataset': dataset} for name, loader in loaders.items()}
    fit_workers(tuple(walk(cfg)), [*cfg, 'test_dataloader'])
    assert tuple(loader['num_workers'] for loader in cfg.values()) == expected
    said = capsys.readouterr().err.splitlines()
    assert len(said) == sum(now != before for now, before in zip(expected, (8, 2)))  # nothing where all fits
    for loader in cfg.values():
        assert loader['persistent_workers'] is (loader['num_workers'] > 0)
        assert loader['num_workers'] or 'prefetch_factor' not in loader
