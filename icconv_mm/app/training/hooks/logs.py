"""Hooks for a run's summary, its curves, and losses and metrics that are not finite."""

import logging
import math
import re
import time
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
from mmengine.dist import get_world_size
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.runner import BaseLoop, EpochBasedTrainLoop, Runner

from icconv_mm.errors import InputError, message_of, printable
from icconv_mm.layers import DeformConv2d
from icconv_mm.versions import command_of

_FIRST = 3  # iterations until the first estimate


class OpeningHook(Hook):
    """Logs a summary first: config, network, dataset, schedule, machine. The saved config has everything else.

    Args:
        name: Name of the config.
        network: Types of the model and its backbone.
        time: The time of a training whose length follows from it.
    """

    priority = 'HIGHEST'

    def __init__(self, name: str, network: Sequence[str], time: str | float | None = None) -> None:
        self.name, self.network, self.time = name, network, time

    def before_train(self, runner: Runner) -> None:
        loop = runner.train_loop
        epochs = isinstance(loop, EpochBasedTrainLoop)
        length = f'{loop.max_epochs} epochs, {loop.max_iters} iterations' if epochs else f'{loop.max_iters} iterations'
        length = length if self.time is None else f'as long as {self.time} allow'
        data = [f'{len(loop.dataloader.dataset)} images to train']
        if isinstance(runner._val_loop, BaseLoop):
            data.append(f'{len(runner.val_loop.dataloader.dataset)} to validate')
        batch = loop.dataloader.batch_size or getattr(loop.dataloader.batch_sampler, 'batch_size', 'several')
        self._say(runner, [*data, f'batches of {batch}', length])
        self._done, self._begun = 0, time.perf_counter()

    def before_test(self, runner: Runner) -> None:
        self._say(runner, [f'{len(runner.test_loop.dataloader.dataset)} images to test'])

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        """Logs early how long the training will take: the first regular line can be minutes away."""
        self._done += 1
        if self._done == _FIRST and self.time is None:
            left = runner.max_iters - runner.iter - 1
            step = (time.perf_counter() - self._begun) / _FIRST
            eta = timedelta(seconds=round(step * left))
            runner.logger.info(
                f'{_FIRST} iterations: {step:.2g} s each; {left} more would take {eta}, without validations'
            )

    def _say(self, runner: Runner, data: Sequence[str]) -> None:
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        parts, count = ', '.join(self.network), sum(parameter.numel() for parameter in model.parameters()) / 1e6
        device = next((str(parameter.device) for parameter in model.parameters()), 'cpu')
        deformable = sum(isinstance(layer, DeformConv2d) for layer in model.modules())
        note = f"; {deformable} deformable convolutions are this package's" if deformable else ''
        runner.logger.info(
            f'{self.name} -> {runner.work_dir}\n'
            f'  network: {parts}, {count:.1f} million parameters{note}\n'
            f'  data: {", ".join(data)}\n'
            f'  machine: {device}, {get_world_size()} processes, torch {torch.__version__}, seed {runner.seed}'
        )


@contextmanager
def warning_after_run(what: str) -> Iterator[None]:
    """Turns an exception into a warning: a finished run does not fail because of its report."""
    try:
        yield
    except Exception as error:
        said = printable((message_of(error).splitlines() or [''])[0])
        text = f'the run has ended well, but {what} failed: {type(error).__name__}: {said:.300}'
        print_log(text, 'current', logging.WARNING)
        print_log(printable(traceback.format_exc(), '\n'), 'current', logging.DEBUG)


class FiniteLossHook(Hook):
    """Ends a training whose loss is not finite: its weights would never be finite again.

    Raises:
        InputError: The loss is not finite; the message has iteration, losses and images, and says where to look.
    """

    priority = 'VERY_HIGH'  # before the log and the checkpoints

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        values = {name: torch.as_tensor(value).detach() for name, value in (outputs or {}).items() if 'loss' in name}
        bad = {name: value.tolist() for name, value in values.items() if not bool(torch.isfinite(value).all())}
        if not bad:
            return
        losses = ', '.join(f'{name} {value}' for name, value in bad.items() if name != 'loss' or len(bad) == 1)
        samples = data_batch.get('data_samples') if isinstance(data_batch, dict) else None
        images = [str(path) for sample in samples or () if (path := getattr(sample, 'img_path', None))]
        rates = {rate for group in runner.optim_wrapper.get_lr().values() for rate in group}
        command = command_of('prepare_data', 'DATA')
        raise InputError(
            f'iteration {runner.iter + 1}: {losses}; images of the batch: {", ".join(images) or "unknown"}. Look at '
            f'the annotations of these ({command} lists boxes without an area), lower the learning '
            f'rate ({max(rates, default=0):g} now), or leave out --amp; --keep-going passes over it'
        )


class UnmeasuredHook(Hook):
    """Removes metrics without a value from a validation, after they are logged and before hooks monitor them.

    Without annotated objects, COCO's metrics are -1 and means are NaN. The first such value would become the best
    checkpoint, and ``EarlyStoppingHook`` would end the training.
    """

    priority = 'LOW'

    def __init__(self) -> None:
        self._has_warned = False

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        monitored = {getattr(hook, 'monitor', None) for hook in runner.hooks}
        monitored.update(key for hook in runner.hooks for key in getattr(hook, 'key_indicators', None) or ())
        none = {key: value for key, value in (metrics or {}).items() if _is_unmeasured(key, value)}
        none = {key: value for key, value in none.items() if key in monitored or 'auto' in monitored}
        for key in none:
            del metrics[key]
        if none and not self._has_warned:
            self._has_warned = True
            warnings.filterwarnings('ignore', 'Skip early stopping process')  # from mmengine, at each validation
            runner.logger.warning(
                f'{", ".join(f"{key} is {value}" for key, value in none.items())}, as where a validation has no '
                'annotated object: no best checkpoint is chosen, no lack of progress ends the training, and the last '
                'checkpoint is the result'
            )


def _is_unmeasured(key: str, value: Any) -> bool:
    """Returns whether a metric is NaN, or the -1 of COCO's evaluation without objects."""
    is_of_coco = re.search('A[PR]', key) is not None
    return isinstance(value, (int, float)) and (math.isnan(value) or (value == -1 and is_of_coco))
