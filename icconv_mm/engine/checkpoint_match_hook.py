"""A checkpoint of another architecture is refused before anything of it is loaded."""

from collections.abc import Sequence
from pathlib import Path

from mmengine.hooks import CheckpointHook, Hook
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.optim import OptimWrapper
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch import nn

from icconv_mm.checkpoints import resuming
from icconv_mm.checkpoints.matching import check_fits
from icconv_mm.errors import naming
from icconv_mm.registry import HOOKS


@HOOKS.register_module()
class CheckpointMatchHook(Hook):
    """Compare a checkpoint with the model before mmengine, which loads whatever fits and logs the rest.

    Args:
        allow: Names of modules where differences are accepted, such as ``'roi_head.bbox_head'`` when the number of
            classes changes.
        name: Name of the checkpoint in the error.
        resume: Whether the run continues from the checkpoint: its counters, logs, optimiser and schedules are checked.

    Raises:
        ArchitectureMismatchError: Keys or shapes differ elsewhere; the message lists them.
        InputError: The run is to continue from the checkpoint, and what it says about the run cannot be.
    """

    priority = 'HIGHEST'  # before hooks that change the checkpoint, such as the one for averaged weights

    def __init__(self, allow: Sequence[str] = (), name: str = 'the checkpoint', resume: bool = False) -> None:
        self.allow = tuple(allow)
        self.name = name
        self.resume = resume

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        check_fits(unwrapped(runner.model), checkpoint, self.name, self.allow)
        if self.resume:
            with naming(self.name):
                _check_resumable(runner, checkpoint)


def unwrapped(model: nn.Module) -> nn.Module:
    """A model without what distributed training or test-time augmentation puts around it."""
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    return model


def _check_resumable(runner: Runner, checkpoint: dict) -> None:
    """Raise InputError unless the runner can continue from a checkpoint; it has its loop and optimiser by now."""
    loop = runner.train_loop
    epochs = loop.max_epochs if isinstance(loop, EpochBasedTrainLoop) else None
    iters = getattr(loop, 'max_iters', None) if epochs is None else None
    resuming.check_progress(checkpoint, epochs, iters)
    outs = [hook.out_dir for hook in runner.hooks if isinstance(hook, CheckpointHook) and hook.out_dir]
    for path in resuming.check_message_hub(checkpoint, [Path(folder) for folder in (runner.work_dir, *outs)]):
        runner.logger.warning(f'the best checkpoint so far, {path}, is not of this work folder: it stays where it is')
    if 'optimizer' in checkpoint and isinstance(runner.optim_wrapper, OptimWrapper):
        resuming.check_optimizer(checkpoint['optimizer'], runner.optim_wrapper.optimizer)
    if 'param_schedulers' in checkpoint and isinstance(runner.param_schedulers, list):
        resuming.check_schedulers(checkpoint['param_schedulers'], runner.param_schedulers)
