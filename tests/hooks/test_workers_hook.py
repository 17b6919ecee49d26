"""The processes that load images end with the run, not when the garbage collector finds the runner."""

import multiprocessing

import pytest

pytest.importorskip('mmdet')

from icconv_mm.runner.train import train

BY_EPOCH = {'by_epoch': True, 'max_epochs': 2, 'val_interval': 1}
BY_ITERATION = {'by_epoch': False, 'max_iters': 2, 'val_interval': 1}


@pytest.mark.parametrize('persistent', [False, True])
@pytest.mark.parametrize('loop', [BY_EPOCH, BY_ITERATION])
def test_no_worker_outlives_the_run(cfg, loop, persistent):
    workers = {'num_workers': 2, 'persistent_workers': persistent}
    made = cfg(default_scope='mmdet', train_cfg=loop)
    made.train_dataloader.update(workers)
    made.val_dataloader.update(workers)
    before = set(multiprocessing.active_children())
    runner = train(made)
    assert set(multiprocessing.active_children()) <= before
    assert len(list(runner.val_dataloader)) == 3  # the loader starts others
