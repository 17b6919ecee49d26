"""Hooks for the tests of resuming and distribution."""

import os
import signal

import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS


@HOOKS.register_module()
class KillHook(Hook):
    """Ends the process as the kernel would, without a chance to clean up, before iteration ``at`` (from 0)."""

    def __init__(self, at: int) -> None:
        self.at = at

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        if runner.iter == self.at:
            os.kill(os.getpid(), signal.SIGKILL)


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
