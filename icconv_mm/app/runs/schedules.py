"""Schedulers for trainings of another length: their configs, their checks, and a hook for a resumed training."""

import math
from collections.abc import Iterator
from typing import Any

from mmengine.hooks import Hook
from mmengine.optim import _ParamScheduler
from mmengine.runner import EpochBasedTrainLoop, Runner

from icconv_mm.config_tree import as_list, kind_of
from icconv_mm.errors import InputError

# The settings that a scheduler counts in epochs or iterations, and their lowest values.
_COUNTS = {'begin': 0, 'end': 1, 'T_max': 1, 'step_size': 1, 'total_steps': 1, 'periods': 1, 'milestones': 1}
# State of a scheduler that changes during the run or belongs to the optimiser; the rest follows from its config.
_STATE = {'optimizer', 'base_values', 'last_step', '_global_step', '_last_value', 'anneal_func'}
_STATE_OF_METRICS = {'best', 'cooldown_counter', 'num_bad_epochs'}  # of ReduceOnPlateau


def stretch(scheduler: dict, kind: str, ratio: float) -> None:
    """Changes a scheduler's config to that of a training ``ratio`` times as long.

    Counts that become iterations when the length of an epoch is known (``convert_to_iter_based``) keep fractions of
    epochs.
    """
    step, whole = ratio * scheduler.get('step_size', 1), not scheduler.get('convert_to_iter_based')
    if kind.startswith('Exponential') or ('step_size' in scheduler and step < 1 and whole):
        scheduler['gamma'] = scheduler.get('gamma', 0.1) ** (1 / step)  # the decay of each step
    _scale_counts(scheduler, kind, ratio, whole)


def _scale_counts(scheduler: dict, kind: str, ratio: float, whole: bool = True) -> None:
    """Multiplies a scheduler's counts, by default to whole numbers."""
    former = _span_of(scheduler) if 'end' in scheduler else 0
    spans = 'end' in scheduler and math.isclose(scheduler.get('T_max') or 0, _span_of(scheduler))
    for key, least in _COUNTS.items():
        if (value := scheduler.get(key)) is not None:
            scaled = [max(round(ratio * value), least) if whole else ratio * value for value in as_list(value)]
            scheduler[key] = scaled if isinstance(value, (list, tuple)) else scaled[0]
    if whole and 'end' in scheduler:
        scheduler['end'] = max(scheduler['end'], scheduler.get('begin', 0) + 1)
    if spans:
        scheduler['T_max'] = _span_of(scheduler)
    if whole and former not in (0, 1):  # a factor of one step, as in RTMO's configs, is intended
        _skip_short_warm_up(scheduler, kind, ('Linear', 'Constant'))


def _span_of(scheduler: dict) -> float:
    return scheduler['end'] - scheduler.get('begin', 0)


def _skip_short_warm_up(scheduler: dict, kind: str, kinds: tuple[str, ...]) -> None:
    """Sets a warm-up of one step to the full value.

    mmengine's warm-ups (``LinearLR``, ``ConstantLR``, the momentum's) reach the full value in their last step. A single
    step is the first one, too: the value would stay at the start for the whole training.
    """
    if kind.startswith(kinds) and 'end' in scheduler and _span_of(scheduler) < 2:
        if kind.startswith('Constant'):
            scheduler['factor'] = 1.0
        else:
            scheduler['start_factor'] = max(scheduler.get('start_factor', 1 / 3), scheduler.get('end_factor', 1.0))


def checked_schedulers(runner: Runner, schedulers: Any) -> Any:
    """Returns the schedulers' configs in the same form; epochs become iterations if a scheduler steps by iteration.

    A warning is logged for a warm-up that is longer than the training.

    Args:
        runner: The runner; its training loop knows the iterations per epoch.
        schedulers: ``param_scheduler`` of the config; None without any.
    """
    if isinstance(schedulers, dict) and 'type' not in schedulers:  # for several optimisers
        return {name: checked_schedulers(runner, configs) for name, configs in schedulers.items()}
    if isinstance(schedulers, dict):
        return [_checked_scheduler(runner, dict(schedulers))]
    return schedulers and [
        _checked_scheduler(runner, dict(scheduler)) if isinstance(scheduler, dict) else scheduler
        for scheduler in schedulers
    ]


def _checked_scheduler(runner: Runner, scheduler: dict) -> dict:
    kind = kind_of(scheduler)
    if scheduler.get('by_epoch', True) and scheduler.pop('convert_to_iter_based', False):
        _scale_counts(scheduler, kind, len(runner.train_dataloader))
        scheduler['by_epoch'] = False
    by_epoch = scheduler.get('by_epoch', True)
    length, unit = (runner.max_epochs, 'epochs') if by_epoch else (runner.max_iters, 'iterations')
    end = scheduler.setdefault('end', length)
    _skip_short_warm_up(scheduler, kind, ('Linear',))
    if kind.startswith(('Linear', 'QuadraticWarmup')) and end > length > scheduler.get('begin', 0):
        runner.logger.warning(
            f'param_scheduler: {kind} ends after {end} {unit}, the training after {length}: it does not reach its end'
        )
    rise = scheduler.get('pct_start', 0.3) * (scheduler.get('total_steps') or _span_of(scheduler))
    if kind == 'OneCycleLR' and rise <= 1:
        raise InputError(
            f'param_scheduler: {kind} has {rise:.3g} {unit} for its rise (pct_start), and needs more than one'
        )
    return scheduler


def train_runner(runner: Runner) -> None:
    """Trains with schedules that fit the length of an epoch, which is known when the training loop is built."""
    if runner.param_schedulers is not None and runner.train_loop is not None:
        runner.param_schedulers = checked_schedulers(runner, runner.param_schedulers)
    runner.train()


class ScheduleHook(Hook):
    """Makes a resumed training follow the schedule of its config; mmengine uses the checkpoint's.

    A schedule equal to the checkpoint's continues. With any other (another length, another decay), the optimiser gets
    the values that a training with this schedule from the start would have at this iteration.

    Args:
        resume: Whether the run continues from a checkpoint.
        name: Name of the checkpoint in the error.

    Raises:
        InputError: The schedule differs from the checkpoint's and depends on metrics of the validation.
    """

    priority = 'VERY_HIGH'

    def __init__(self, resume: bool = True, name: str = 'the checkpoint') -> None:
        self.resume, self.name = resume, name
        self._is_another = False

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Removes the function that ``OneCycleLR`` saves: no checkpoint with it can be read, and schedulers have it."""
        for state in _each(checkpoint.get('param_schedulers', ())):
            state.pop('anneal_func', None)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Adapts the states in the checkpoint before mmengine loads them into the schedulers."""
        states = checkpoint.get('param_schedulers')
        if states is None or not runner.param_schedulers or not self.resume:
            return
        now, before = list(_each(runner.param_schedulers)), list(_each(states))
        for scheduler, state in zip(now, before):
            if is_of_metrics(scheduler) and state.keys() >= _STATE_OF_METRICS:  # its state is valid for any length
                state.update(_plan(vars(scheduler)))
        if [_plan(vars(scheduler)) for scheduler in now] == [_plan(state) for state in before]:
            return
        changes = _changes(now, before)
        if metrics := next(filter(is_of_metrics, now), None):
            raise InputError(
                f'{self.name}: the schedule is not that of the checkpoint ({changes}), and '
                f'{type(metrics).__name__} depends on validations that a training with this one would have had: resume '
                'with the former schedule'
            )
        runner.logger.info(
            f'the schedule is not that of the checkpoint ({changes}): the training goes on as this one plans it'
        )
        self._is_another = True
        checkpoint['param_schedulers'] = (
            {
                name: [scheduler.state_dict() for scheduler in schedulers]
                for name, schedulers in runner.param_schedulers.items()
            }
            if isinstance(runner.param_schedulers, dict)
            else [scheduler.state_dict() for scheduler in now]
        )

    def before_train(self, runner: Runner) -> None:
        """Replays changed schedules; the optimiser has the checkpoint's values by then."""
        if not self._is_another:
            return
        loop, length = runner.train_loop, None
        iterations = loop.iter
        if isinstance(loop, EpochBasedTrainLoop):
            length = len(loop.dataloader)
            if iterations // length != loop.epoch:  # the checkpoint's epochs had another length
                iterations = loop.epoch * length
        current = runner.param_schedulers
        for schedulers in current.values() if isinstance(current, dict) else [current]:
            replay(schedulers, iterations, length)


def replay(schedulers: list[_ParamScheduler], iterations: int, epoch: int | None) -> None:
    """Advances schedulers and their optimiser's values from the start of the training to an iteration, as mmengine.

    Args:
        schedulers: All schedulers of one optimiser.
        iterations: Iterations that the training has done.
        epoch: Iterations per epoch; None for a training that counts no epochs.
    """
    for scheduler in schedulers:
        scheduler.last_step = scheduler._global_step = -1
        scheduler.optimizer._global_step = iterations  # mmengine warns if there was no step
        groups, name = scheduler.optimizer.param_groups, scheduler.param_name
        for group, base in zip(groups, scheduler.base_values):  # the checkpoint's base value, if it has one
            group[name] = group.setdefault(f'initial_{name}', base)
        scheduler.base_values = [group[name] for group in groups]
    for scheduler in schedulers:
        scheduler.step()
    in_order = sorted(schedulers, key=lambda scheduler: scheduler.by_epoch)  # those by epoch last
    for done in range(1, iterations + 1):
        for scheduler in in_order:
            if not scheduler.by_epoch or (epoch and done % epoch == 0):
                scheduler.step()


def _each(schedulers: Any) -> Iterator[Any]:
    """Yields schedulers or their states, one optimiser after the other."""
    for schedulers_of_optimizer in schedulers.values() if isinstance(schedulers, dict) else [schedulers]:
        yield from schedulers_of_optimizer


def is_of_metrics(scheduler: _ParamScheduler) -> bool:
    return getattr(scheduler, 'need_val_args', False)


def _plan(state: dict) -> dict:
    """Returns the part of a scheduler's state that follows from its config."""
    return {key: value for key, value in state.items() if key not in _STATE | _STATE_OF_METRICS}


def _changes(now: list[_ParamScheduler], before: list[dict]) -> str:
    """Returns a message that lists where the schedulers differ from the checkpoint's states."""
    if len(now) != len(before):
        return f'{len(before)} schedulers there, {len(now)} here'
    return '; '.join(
        f'{type(scheduler).__name__}.{key} {state.get(key)} there, {value} here'
        for scheduler, state in zip(now, before)
        for key, value in _plan(vars(scheduler)).items()
        if state.get(key) != value
    )
