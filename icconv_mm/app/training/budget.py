"""Chooses the length of a training by a time budget, and keeps to it."""

import copy
import io
import json
import math
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop, Runner

from icconv_mm.app.runs.begin import TaskRun, begin
from icconv_mm.app.runs.lengths import scale_running, set_length
from icconv_mm.app.runs.schedules import checked_schedulers, replay, stretch
from icconv_mm.app.runs.workers import end_workers
from icconv_mm.checkpoints import reading
from icconv_mm.checkpoints.metadata import meta_of
from icconv_mm.config_tree import kind_of, walk_dicts
from icconv_mm.errors import ArgumentError, InputError
from icconv_mm.files import write_json
from icconv_mm.run_folder import last_checkpoint

_SPENT = 'time.json'  # in the folder of a run: the seconds that it has taken
_WARM, _TIMED = 3, 10  # first steps, which start workers and fill caches, and those that are timed
_VALIDATIONS = 20  # at most, in at most _SHARE of the time
_SHARE = 0.2
_REPORT = 5.0  # seconds to write the report, and a validation
_MARGIN = 0.95  # share of the budget that is planned
_STEPS = 20  # over which a step's time is averaged
_FEW = 300  # iterations; BCCD, an easy set, needs 400 for 47 AP
_CHANGE = 0.1  # least change of the rest of a training for which it is planned again
_TEXT = re.compile(r'(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?')


def seconds_of(text: str | float) -> float:
    """Returns the seconds of a duration: ``90s``, ``12m``, ``1h30m``, or a number of seconds.

    Raises:
        ArgumentError: The text is no duration, or not positive.
    """
    if isinstance(text, str):
        found = _TEXT.fullmatch(text.strip())
        seconds = sum(float(each or 0) * unit for each, unit in zip(found.groups(), (3600, 60, 1))) if found else 0.0
    else:
        seconds = float(text)
    if not 0 < seconds < math.inf:
        raise ArgumentError('time', f'expected a duration such as 90s, 12m or 1h30m, got {text!r:.40}')
    return seconds


def duration(seconds: float) -> str:
    """Returns seconds as a text: ``41 s``, ``12 min``, ``1 h 30 min``."""
    minutes = round(seconds / 60)
    if seconds < 99.5:
        return f'{seconds:.2g} s' if seconds < 9.95 else f'{seconds:.0f} s'
    return f'{minutes} min' if minutes < 60 else f'{minutes // 60} h {minutes % 60} min'


@dataclass
class Costs:
    """Seconds that parts of a training take.

    Attributes:
        step: An iteration.
        steps: Iterations per epoch; None for a training that counts iterations.
        validation: A validation; None without any.
        saving: A checkpoint.
    """

    step: float
    steps: int | None
    validation: float | None
    saving: float = 0.0

    @property
    def unit(self) -> float:
        """Returns the seconds of an epoch, or of an iteration."""
        return self.step * (self.steps or 1)

    @property
    def evaluation(self) -> float:
        """Returns the seconds of a validation, with two checkpoints: the latest and the best."""
        return (self.validation or 0.0) + 2 * self.saving

    @property
    def report(self) -> float:
        """Returns the seconds of a report."""
        return _REPORT + (self.validation or 0.0)

    def plan(self, seconds: float, count: int | None = None) -> tuple[int, int]:
        """Returns the epochs or iterations that fit in a time, and the interval of validations.

        Args:
            seconds: The time, which includes validations and the report.
            count: Validations; by default as many as take a fifth of the time, at most 20.
        """
        left = seconds - self.report
        if count is None:
            count = int(min(_VALIDATIONS, max(1.0, _SHARE * left / max(self.evaluation, 1e-9))))
        fitting = int((left - count * self.evaluation) / self.unit)
        if fitting < count:  # a validation after each
            return max(0, min(count, int(left / (self.unit + self.evaluation)))), 1
        return fitting, max(1, math.ceil(fitting / count))


class Budget:
    """The time of a training, from the start of its command, and over all runs that resume it.

    Args:
        given: The duration, as :func:`seconds_of` reads it.
        clock: Returns seconds.
    """

    def __init__(self, given: str | float, clock: Callable[[], float] = time.monotonic) -> None:
        self.given, self.seconds, self.clock = given, seconds_of(given), clock
        self.start, self.before = clock(), 0.0

    @property
    def spent(self) -> float:
        """Returns the seconds until now, with those of earlier runs."""
        return self.before + self.clock() - self.start

    @property
    def left(self) -> float:
        """Returns the seconds that are left."""
        return self.seconds - self.spent

    def resume(self, work_dir: str) -> None:
        """Adds the seconds that earlier runs in a folder have taken.

        Raises:
            ArgumentError: They have taken all.
            InputError: The file with them is damaged.
        """
        file = Path(work_dir, _SPENT)
        with suppress(FileNotFoundError):
            try:
                self.before = float(json.loads(file.read_bytes())['seconds'])
                if not 0 <= self.before < math.inf:
                    raise ValueError('expected seconds from 0 on')
            except (ValueError, TypeError, KeyError, OverflowError, RecursionError, IsADirectoryError) as error:
                what = 'the time that earlier runs have taken is unknown'
                raise InputError(f'{file} is damaged, {what}: delete it, and the time starts anew') from error
        if self.left <= 0:
            raise ArgumentError('time', f'{work_dir} has taken {duration(self.before)} of {self.given}: give more')

    def store(self, work_dir: str) -> None:
        """Writes the seconds that all runs in a folder have taken."""
        write_json(Path(work_dir, _SPENT), {'seconds': round(self.spent, 1)})


def choose_length(
    run: TaskRun, budget: Budget, costs: Costs, resume: str | bool, say: Callable[[str], None] = print
) -> None:
    """Changes a config so that its training takes the rest of a budget.

    Args:
        run: The run, before it is prepared.
        budget: The budget.
        costs: What was measured.
        resume: As for :func:`icconv_mm.apis.train`.
        say: Called with lines about the choice.

    Raises:
        ArgumentError: The time does not suffice for an epoch.
    """
    cfg, unit = run.cfg, 'epochs' if costs.steps else 'iterations'
    done = _done(cfg, resume, bool(costs.steps))
    seconds = _MARGIN * budget.left
    fitting, interval = costs.plan(seconds)
    measured = f'{duration(costs.step)} a step, '
    measured += 'no validation' if costs.validation is None else f'{duration(costs.validation)} a validation'
    size = _size_of(cfg)
    if fitting < 1:
        least = costs.unit + costs.evaluation + costs.report
        smaller = f'; --size {_smaller(size, 0.25)} takes about a quarter' if size else ''
        raise ArgumentError(
            'time',
            f'{duration(budget.left)} are left of {budget.given}, and one of the {unit} with a validation and a '
            f'report takes {duration(least)} ({measured}){smaller}',
        )
    fitting = min(fitting, costs.plan(seconds, _validations(done + 1, done + fitting, interval))[0])
    set_length(cfg, **{'epochs' if costs.steps else 'iters': done + fitting})
    cfg.train_cfg.val_interval = interval
    saving = (cfg.get('default_hooks') or {}).get('checkpoint')
    if saving:  # as often as it is validated: saving each short epoch would take the time of training
        saving['interval'] = interval
    at = f' at {size} pixels' if size else ''
    before = f' after the first {done}' if done else ''
    every = '' if costs.validation is None else f', one every {f"{interval} {unit}" if interval > 1 else unit[:-1]}'
    say(f'--time {budget.given}: {fitting} {unit}{before}{at} ({measured}{every})')
    if size and (smaller := _smaller(size, 0.5)) < size:
        share = (smaller / size) ** 2
        cheaper = Costs(costs.step * share, costs.steps, costs.validation and costs.validation * share, costs.saving)
        say(f'  --size {smaller} would give about {cheaper.plan(seconds)[0]} {unit}')
    if (steps := (done + fitting) * (costs.steps or 1)) < _FEW:
        say(f'  {steps} iterations teach a network little: more time, a smaller --size or weights (--pretrained) help')


def _validations(first: int, last: int, interval: int) -> int:
    """Returns how many validations follow the epochs or iterations from ``first`` on: the last one has one, too."""
    return (last - 1) // interval - (first - 1) // interval + 1


def _size_of(cfg: Config) -> int | None:
    """Returns the pixels of the images' longer side in a written config, which has ``size`` or ``shape``."""
    sides = cfg.get('shape') or (cfg.get('size'),)
    is_known = isinstance(sides, (list, tuple)) and all(isinstance(side, int) for side in sides)
    return max(sides) if is_known else None


def _smaller(size: int, share: float) -> int:
    """Returns a size with about a share of the pixels, a multiple of 32."""
    return max(32, round(size * share**0.5 / 32) * 32)


def _done(cfg: Config, resume: str | bool, by_epoch: bool) -> int:
    """Returns the epochs or iterations of the checkpoint that a training resumes."""
    path = last_checkpoint(cfg.work_dir) if resume in (True, 'auto') else resume
    if not path or not Path(path).is_file():
        return 0
    return int(meta_of(reading.read(path)).get('epoch' if by_epoch else 'iter') or 0)


class _Timed(Exception):
    """Ends the training that is only timed."""


class TimingHook(Hook):
    """Ends a training after a few steps, and keeps their time.

    Args:
        clock: Returns seconds.

    Attributes:
        step: Seconds of a step.
    """

    priority = 'VERY_LOW'

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock, self.step = clock, 0.0

    def before_train(self, runner: Runner) -> None:
        self._done, self._begun = 0, self.clock()

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        self._done += 1
        if self._done == _WARM:
            self._warm = self.clock()
        if self._done == _WARM + _TIMED:
            self._end()

    def after_train(self, runner: Runner) -> None:
        self._end()

    def _end(self) -> None:
        begun, counted = (self._warm, self._done - _WARM) if self._done > _WARM else (self._begun, self._done)
        self.step = max((self.clock() - begun) / max(counted, 1), 1e-6)
        raise _Timed


@contextmanager
def trial(run: TaskRun) -> Iterator[TaskRun]:
    """Yields a copy of a run, in a folder that is removed, without logs and checkpoints."""
    with tempfile.TemporaryDirectory(prefix='icconv_mm_', ignore_cleanup_errors=True) as folder:
        cfg = copy.deepcopy(run.cfg)
        cfg.work_dir, cfg.log_level, cfg.experiment_name = folder, 'ERROR', f'timing_{Path(folder).name}'
        if cfg.get('train_cfg'):
            cfg.train_cfg.val_begin = 1 << 30
        yield begin(cfg)


def step_costs(runner: Runner, train: Callable[[Runner], None], clock: Callable[[], float] = time.monotonic) -> Costs:
    """Returns the costs of a training, of which a few steps are done.

    Args:
        runner: The runner of a trial.
        train: Trains by it.
        clock: Returns seconds.
    """
    hook = TimingHook(clock)
    runner.register_hook(hook)
    with suppress(_Timed):
        train(runner)
    end_workers(runner)  # before others are started
    loop = runner.train_loop
    steps = len(loop.dataloader) if isinstance(loop, EpochBasedTrainLoop) else None
    validation = _validation(runner, clock) if runner._val_loop is not None else None
    end_workers(runner)
    begun = clock()
    torch.save({'model': runner.model.state_dict(), 'optimizer': runner.optim_wrapper.state_dict()}, io.BytesIO())
    return Costs(hook.step, steps, validation, 2 * (clock() - begun))  # it is flushed to the disk, too


def _validation(runner: Runner, clock: Callable[[], float]) -> float:
    """Returns the seconds of a validation, by its first batches."""
    loader = runner.val_dataloader
    runner.model.eval()
    begun, counted, total = clock(), 0, len(loader)
    with torch.no_grad():
        for number, batch in enumerate(loader):
            runner.model.val_step(batch)
            if number == 0 and total > 1:
                begun = clock()
                continue
            counted += 1
            if counted == _TIMED:
                break
    return (clock() - begun) / max(counted, 1) * total


class BudgetHook(Hook):
    """Keeps a training to its budget: plans its rest again if steps take another time than was measured.

    The schedulers follow the new length, so that the learning rate still falls to its end.

    Args:
        budget: The budget.
        costs: What was measured.
        schedulers: The schedulers of the config for its length.
    """

    priority = 80  # after the schedulers' steps, and before the hook that saves the last checkpoint

    def __init__(self, budget: Budget, costs: Costs, schedulers: Any) -> None:
        self.budget, self.costs, self.schedulers = budget, costs, copy.deepcopy(schedulers)

    def before_train(self, runner: Runner) -> None:
        self.length = runner.max_epochs if self.costs.steps else runner.max_iters
        self._begun, self._from = self.budget.clock(), runner.iter

    def before_val(self, runner: Runner) -> None:
        self._val_begun = self.budget.clock()

    def after_val(self, runner: Runner) -> None:
        now = self.budget.clock()
        self.costs.validation = now - self._val_begun
        self._begun, self._from = now, runner.iter
        self.budget.store(runner.work_dir)

    def after_train_epoch(self, runner: Runner) -> None:
        if self.costs.steps:
            self._check(runner, runner.epoch + 1, runner.iter)

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        if not self.costs.steps and (runner.iter + 1) % max(_TIMED, self.length // 50) == 0:
            self._check(runner, runner.iter + 1, runner.iter + 1)

    def after_train(self, runner: Runner) -> None:
        self.budget.store(runner.work_dir)

    def _check(self, runner: Runner, done: int, iterations: int) -> None:
        """Plans the rest again after ``done`` epochs or iterations."""
        now, steps = self.budget.clock(), iterations - self._from
        weight = min(1.0, steps / _STEPS)
        self.costs.step += weight * ((now - self._begun) / max(steps, 1) - self.costs.step)
        self._begun, self._from = now, iterations
        left = self.length - done
        fitting = self._fitting(runner, done, left)
        if fitting > left:  # a longer rest may be validated more often
            longer = int(_MARGIN * fitting)
            fitting = max(left, min(longer, self._fitting(runner, done, longer)))
        # of another speed, the rest changes; at its end, nothing is begun that does not fit
        if left > 0 and (abs(fitting - left) > max(1, _CHANGE * left) or fitting == 0):
            self._change(runner, done, done + fitting, iterations)

    def _fitting(self, runner: Runner, done: int, left: int) -> int:
        """Returns how many epochs or iterations fit after ``done``, with the validations of ``left`` more."""
        interval = runner.train_loop.val_interval
        count = _validations(done, done + left, interval) if runner._val_loop is not None and left > 0 else 0
        return max(0, self.costs.plan(self.budget.left, max(1, count))[0])

    def _change(self, runner: Runner, done: int, length: int, iterations: int) -> None:
        length = max(length, done)
        if length == self.length:
            return
        loop = runner.train_loop
        ratio, self.length = length / self.length, length
        if self.costs.steps:
            loop._max_epochs, loop._max_iters = length, length * len(loop.dataloader)
        else:
            loop._max_iters = length
        unit = 'epochs' if self.costs.steps else 'iterations'
        runner.logger.info(f'{self.costs.step:.2g} s a step: the training ends after {length} {unit} instead')
        for hook in runner.hooks:
            scale_running(hook, ratio, done, length)
        if length > done and self.schedulers and not _depends_on_metrics(runner.param_schedulers):
            for scheduler in walk_dicts(self.schedulers):
                stretch(scheduler, kind_of(scheduler), ratio)
            configs = checked_schedulers(runner, copy.deepcopy(self.schedulers))
            runner.param_schedulers = runner.build_param_scheduler(configs)
            replay(runner.param_schedulers, iterations, len(loop.dataloader) if self.costs.steps else None)


def _depends_on_metrics(schedulers: Any) -> bool:
    """Returns whether schedulers cannot be replayed, or are of several optimisers."""
    if isinstance(schedulers, Mapping):
        return True
    return any(getattr(each, 'need_val_args', False) for each in schedulers or ())
