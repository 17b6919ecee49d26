"""Hook that makes a resumed training repeat the random numbers of an uninterrupted one."""

import random
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch.utils.data import DataLoader

from icconv_mm.errors import InputError
from icconv_mm.registry import HOOKS


@HOOKS.register_module()
class ResumableRandomnessHook(Hook):
    """Makes a resumed run continue as if it had never stopped.

    mmengine restores weights, optimiser and schedules, and advances the data loader, but restarts the random
    generators. This hook reseeds them at fixed points, from the run's seed and the number of the epoch or iteration.
    After such a point, the random numbers no longer depend on the run before it:

    * in epoch-based runs at every epoch after the first, in this process and in the data loader's workers. Persistent
      workers are restarted, which is the only way to reach their generators;
    * in iteration-based runs every ``interval`` iterations. The workers' generators need no reseeding there: mmengine
      replays all data from the start.

    Before the first of these points, a run draws the same random numbers as without the hook.

    Args:
        interval: Iterations between two reseedings in iteration-based runs; by default the checkpoint interval.
    """

    priority = 'VERY_LOW'

    def __init__(self, interval: int | None = None) -> None:
        if interval is not None and interval < 1:
            raise InputError(f'ResumableRandomnessHook: interval must be positive, got {interval}')
        self.interval = interval

    def before_train(self, runner: Runner) -> None:
        saving = (hook for hook in runner.hooks if isinstance(hook, CheckpointHook) and not hook.by_epoch)
        interval = self.interval or next((hook.interval for hook in saving if hook.interval > 0), None)
        loop = runner.train_loop
        if interval and not isinstance(loop, EpochBasedTrainLoop) and hasattr(loop, 'dataloader_iterator'):
            loop.dataloader_iterator = _RestartingIterator(
                loop.dataloader_iterator, interval, runner.seed, loop.dataloader
            )

    def before_train_epoch(self, runner: Runner) -> None:
        if isinstance(runner.train_loop, EpochBasedTrainLoop) and runner.epoch > 0:
            seed, loader = derived_seed(runner.seed, runner.epoch), runner.train_dataloader
            restart_generators(seed)
            # mmengine seeds a worker through this function, with the same seed in every epoch; a config's own is kept
            init = loader.worker_init_fn
            if isinstance(init, partial) and 'seed' in init.keywords:
                loader.worker_init_fn = partial(init.func, *init.args, **{**init.keywords, 'seed': seed % 2**31})
            clear_caches(loader)
            if loader.persistent_workers and loader._iterator is not None:
                loader._iterator = None  # holds the persistent workers; the loader makes a new one for the next epoch


class _RestartingIterator:
    """Iterator that reseeds the generators before every ``interval``-th batch is loaded.

    It counts batches from the start of the run, also while mmengine skips the batches that a resumed run has seen.
    """

    def __init__(self, iterator, interval: int, seed: int, loader: DataLoader) -> None:
        self._iterator, self._interval, self._seed, self._count = iterator, interval, seed, 0
        self._loader = loader

    def __iter__(self) -> Iterator:
        return self

    def __next__(self) -> Any:
        if self._count and self._count % self._interval == 0:
            restart_generators(derived_seed(self._seed, self._count))
            clear_caches(self._loader)
        self._count += 1
        return next(self._iterator)

    def skip_iter(self, num_iters: int) -> None:
        """Loads and drops batches: onedl-mmengine calls it to resume, and the workers' generators must advance."""
        for _ in range(num_iters):
            next(self)


def clear_caches(loader: DataLoader) -> None:
    """Clears the images that mmdet's ``CachedMosaic`` and ``CachedMixUp`` keep, which a resumed run would not have."""
    for transform in getattr(getattr(loader.dataset, 'pipeline', None), 'transforms', ()):
        if hasattr(transform, 'results_cache'):
            transform.results_cache.clear()


def derived_seed(seed: int, position: int) -> int:
    """Returns a 32-bit seed for an epoch or iteration of the run that was started with ``seed``."""
    return int(np.random.SeedSequence([seed, position]).generate_state(1)[0])


def restart_generators(seed: int) -> None:
    """Seeds the generators of Python, numpy and torch (all devices)."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
