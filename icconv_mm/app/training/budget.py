"""Keeps a training to a time: its length is estimated from the steps that it has done, again after each epoch."""

import copy
import json
import math
import re
import time
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop, Runner

from icconv_mm.app.runs.lengths import change_length, set_length
from icconv_mm.app.runs.workers import EndingLoader
from icconv_mm.errors import ArgumentError, InputError
from icconv_mm.files import write_json

_SPENT = 'time.json'  # in the folder of a run: the seconds that it has taken, and its length
_WARM, _FIRST, _STEPS = 3, 13, 20  # steps that are not timed, before the first plan, and over which time is averaged
_TRIED = 0.05  # most of the time for the first estimate of a validation
_VALIDATIONS, _SHARE = 20, 0.2  # at most, in at most this share of the time
_REPORT = 5.0  # seconds of the report, and a validation
_MARGIN, _CHANGE = 0.97, 0.03  # share of the rest that is planned, and of all the time that changes a plan
_FEW = 300  # iterations; BCCD, an easy set, needs 400 for 47 AP
_TEXT = re.compile(r'(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?')


def seconds_of(given: str | float) -> float:
    """Returns the seconds of a duration: ``90s``, ``12m``, ``1h30m``, or a number; any other is an ArgumentError."""
    match = _TEXT.fullmatch(f'{given}s' if isinstance(given, (int, float)) else given.strip())
    seconds = sum(float(part or 0) * unit for part, unit in zip(match.groups(), (3600, 60, 1))) if match else 0.0
    if not 0 < seconds < math.inf:
        raise ArgumentError('time', f'expected a duration such as 90s, 12m or 1h30m, got {given!r:.40}')
    return seconds


class Budget:
    """The time of a training, from the start of its command, and over all runs that resume it."""

    def __init__(self, given: str | float, clock: Any = time.monotonic) -> None:
        self.given, self.clock, self.seconds, self.length = given, clock, seconds_of(given), 0
        self.end = clock() + self.seconds

    @property
    def left(self) -> float:
        """Returns the seconds that are left."""
        return self.end - self.clock()

    def resume(self, cfg: Config) -> None:
        """Takes off what earlier runs in the folder of a config have taken, and gives the config their length.

        Raises:
            ArgumentError: They have taken all.
            InputError: The file with it is damaged.
        """
        file = Path(cfg.work_dir, _SPENT)
        with suppress(FileNotFoundError):
            try:
                content = json.loads(file.read_bytes())
                before, self.length = float(content['seconds']), int(content.get('length', 0))
                if not (0 <= before < math.inf and self.length >= 0):
                    raise ValueError('expected numbers from 0 on')
            except (ValueError, TypeError, KeyError, OverflowError, RecursionError, IsADirectoryError) as error:
                what = 'the time that earlier runs have taken is unknown'
                raise InputError(f'{file} is damaged, {what}: delete it, and the time starts anew') from error
            self.end -= before
            if self.left <= 0:
                raise ArgumentError('time', f'{cfg.work_dir} has taken {before:.0f} s of {self.given}: give more')
            if self.length:
                set_length(cfg, **{'iters' if 'max_iters' in cfg.train_cfg else 'epochs': self.length})

    def store(self, work_dir: str) -> None:
        """Writes the seconds that all runs in a folder have taken, and the length of the training."""
        write_json(Path(work_dir, _SPENT), {'seconds': round(self.seconds - self.left, 1), 'length': self.length})


class BudgetHook(Hook):
    """Chooses the length of a training after a few steps, and again when they take another time.

    The schedulers follow, so that the learning rate falls to its end. An epoch that does not fit ends early.
    """

    priority = 80  # after the schedulers' steps, and before the hook that saves the last checkpoint

    def __init__(self, budget: Budget, cfg: Config) -> None:
        self.budget, self.schedulers = budget, copy.deepcopy(cfg.get('param_scheduler'))
        sides = np.ravel(cfg.get('shape') or cfg.get('size') or 0)  # of a written config
        self.size = int(sides.max()) if sides.dtype.kind == 'i' else 0

    def before_train(self, runner: Runner) -> None:
        loop, self.unit, self.steps, done = runner.train_loop, 'iterations', 1, runner.iter
        if isinstance(loop, EpochBasedTrainLoop):
            self.unit, self.steps, done = 'epochs', len(loop.dataloader), runner.epoch
            EndingLoader.become(loop.dataloader)
        self.given = loop.max_epochs if self.unit == 'epochs' else loop.max_iters
        self.times, self.pause, self.validated, self.is_due = deque(maxlen=_STEPS), None, 0, None
        self.begun, self.last, self.whole = runner.iter, self.budget.clock(), self.budget.left
        length = max(self.given, done + math.ceil(_FIRST / self.steps))
        self._change(runner, length, done, length)  # neither over nor validated before a plan

    def after_val(self, runner: Runner) -> None:
        now = self.budget.clock()
        if not self.validated and self.is_due is not None:
            self.is_due = True
        self.pause, self.last, self.validated = now - self.last, now, self.validated + 1  # with its checkpoints
        self.budget.store(runner.work_dir)

    def after_train_epoch(self, runner: Runner) -> None:
        if self.unit == 'epochs' and runner.iter - self.begun >= _FIRST:
            self._plan(runner, runner.epoch + 1)

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        now, count, is_by_epoch = self.budget.clock(), runner.iter + 1 - self.begun, self.unit == 'epochs'
        self.times.append(now - self.last)
        self.last = now
        is_over = self.budget.left < self.times[-1] + _REPORT + (self.pause or 0.0)
        if is_over or count == _FIRST or not (is_by_epoch or count % max(10, self.budget.length // 50)):
            self._plan(runner, runner.epoch + (batch_idx + 1) / self.steps if is_by_epoch else runner.iter + 1)
        if count == _WARM:
            self.times.clear()

    def _validation(self, runner: Runner) -> float:
        """Returns the seconds of a validation, an estimate by its first batches."""
        if runner.val_loop is None:
            return 0.0
        loader, begun, number = runner.val_loop.dataloader, self.budget.clock(), 0
        runner.model.eval()
        with torch.no_grad():
            for number, batch in zip(range(_FIRST), loader):
                runner.model.val_step(batch)
                begun = begun if number else self.budget.clock()
                if self.budget.clock() - begun > _TRIED * self.whole:
                    break
        runner.model.train()
        return (self.budget.clock() - begun) / max(number, 1) * len(loader)

    def _fitting(self, unit: float, pause: float) -> tuple[float, int]:
        """Returns how many epochs or iterations of so many seconds fit, and the validations among them."""
        left = _MARGIN * self.budget.left - _REPORT - pause  # the report evaluates once more
        count = int(min(_VALIDATIONS, max(1.0, _SHARE * self.whole / max(pause, 1e-9)))) - self.validated
        return max((left - max(count, 1) * pause) / unit, min(count, left / (unit + pause)), 0.0), max(count, 1)

    def _plan(self, runner: Runner, done: float) -> None:
        """Chooses the length, of which so many epochs or iterations are over."""
        if self.pause is None:
            self.pause, self.last = self._validation(runner), self.budget.clock()
        step, former, begun = np.mean(self.times), self.budget.length, math.ceil(done)
        fitting, count = self._fitting(step * self.steps, self.pause)
        length = max(begun, int(done + fitting))
        if is_cut := done + fitting < begun:
            runner.train_loop.dataloader.most = max(1, round((done + fitting - begun + 1) * self.steps))
        change = abs(length - former) * self.steps * step if former > done else 0.0
        if is_cut or self.is_due is not False or change > _CHANGE * self.whole:
            interval = max(1, length if count == 1 else math.ceil((length - int(done)) / count))
            self._change(runner, length, done, interval)
            if self.is_due is None:
                self._say(runner, f'{step:.2g} s a step', step * self.steps, interval)
            elif length != former:
                runner.logger.info(f'{step:.2g} s a step: the training ends after {length} {self.unit} instead')
            self.is_due = False

    def _change(self, runner: Runner, length: int, done: float, interval: int | None = None) -> None:
        change_length(runner, length, done, interval, (self.schedulers, length / self.given))
        self.budget.length = length

    def _say(self, runner: Runner, cost: str, unit: float, interval: int) -> None:
        """Logs the first plan, and what would learn more in the time."""
        loop, length, pause, say = runner.train_loop, self.budget.length, self.pause, runner.logger.info
        is_cut = self.unit == 'epochs' and len(loop.dataloader) < self.steps
        what = f'{len(loop.dataloader)} of the {self.steps} steps of an epoch' if is_cut else f'{length} {self.unit}'
        what += f' at {self.size} pixels' if self.size else ''
        often = f'one every {interval} {self.unit}' if interval > 1 else f'one in each of the {self.unit}'
        cost += f', about {pause:.2g} s a validation, {often}' if pause else ', no validation'
        say(f'--time {self.budget.given}: {what} in all ({cost})')
        if 32 < (smaller := round(self.size * 0.5**0.5 / 32) * 32) < self.size:
            share = (smaller / self.size) ** 2
            say(f'  --size {smaller} would give about {self._fitting(unit * share, pause * share)[0]:.0f} {self.unit}')
        if loop.max_iters < _FEW:
            helps = 'more time, a smaller --size or weights (--pretrained) help'
            say(f'  {loop.max_iters} iterations teach a network little: {helps}')
