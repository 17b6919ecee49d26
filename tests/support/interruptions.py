"""Hooks for the tests of resuming and distribution."""

import os
import signal
import time

import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS


@HOOKS.register_module()
class KillHook(Hook):
    """Ends the process as the kernel would, without a chance to clean up, before iteration ``at`` (from 0).

    Of several processes, it ends that of ``rank``.
    """

    def __init__(self, at: int, rank: int = 0) -> None:
        self.at = at
        self.rank = rank

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        if runner.iter == self.at and get_rank() == self.rank:
            self.interrupt()

    def interrupt(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


@HOOKS.register_module()
class HangHook(KillHook):
    """As ``KillHook``, for a process that does nothing any more."""

    def interrupt(self) -> None:
        time.sleep(3600)


@HOOKS.register_module()
class SaveWeightsHook(Hook):
    """Every process writes its own weights and losses to ``rank_N.pth`` in the work folder."""

    def before_train(self, runner) -> None:
        self.losses = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        self.losses.append(outputs['loss'].detach())

    def after_train(self, runner) -> None:
        model = getattr(runner.model, 'module', runner.model)
        content = {'weights': model.state_dict(), 'losses': torch.stack(self.losses)}
        torch.save(content, os.path.join(runner.work_dir, f'rank_{get_rank()}.pth'))
