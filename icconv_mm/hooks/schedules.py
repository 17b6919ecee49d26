"""Schedulers that do what the config says: in short trainings, and in those that go on with another length."""

from collections.abc import Iterator
from typing import Any

from mmengine.hooks import Hook
from mmengine.optim import _ParamScheduler
from mmengine.runner import EpochBasedTrainLoop, Runner

from icconv_mm.config_tree import kind_of
from icconv_mm.errors import InputError
from icconv_mm.hooks.schedule_lengths import scale_counts, skip_short_warm_up, span_of

# What of a scheduler changes while it runs, or is of the optimiser; the rest is its plan.
_STATE = {'optimizer', 'base_values', 'last_step', '_global_step', '_last_value', 'anneal_func'}
_STATE_OF_METRICS = {'best', 'cooldown_counter', 'num_bad_epochs'}  # of ReduceOnPlateau


def checked_schedulers(runner: Runner, schedulers: Any) -> Any:
    """Configs of schedulers in the same form, those of epochs that step in every iteration in iterations.

    A warm-up that is longer than the training gets a warning.

    Args:
        runner: The runner, whose training loop says how many iterations an epoch has.
        schedulers: ``param_scheduler`` of its config; None without any.
    """
    if isinstance(schedulers, dict) and 'type' not in schedulers:  # of several optimisers
        return {name: checked_schedulers(runner, own) for name, own in schedulers.items()}
    if isinstance(schedulers, dict):
        return [_check(runner, dict(schedulers))]
    return schedulers and [_check(runner, dict(each)) if isinstance(each, dict) else each for each in schedulers]


def _check(runner: Runner, scheduler: dict) -> dict:
    kind = kind_of(scheduler)
    if scheduler.get('by_epoch', True) and scheduler.pop('convert_to_iter_based', False):
        scale_counts(scheduler, kind, len(runner.train_dataloader))
        scheduler['by_epoch'] = False
    by_epoch = scheduler.get('by_epoch', True)
    length, unit = (runner.max_epochs, 'epochs') if by_epoch else (runner.max_iters, 'iterations')
    end = scheduler.setdefault('end', length)
    skip_short_warm_up(scheduler, kind, ('Linear',))
    if kind.startswith(('Linear', 'QuadraticWarmup')) and end > length > scheduler.get('begin', 0):
        runner.logger.warning(
            f'param_scheduler: {kind} ends after {end} {unit}, the training after {length}: it does not reach its end'
        )
    rise = scheduler.get('pct_start', 0.3) * (scheduler.get('total_steps') or span_of(scheduler))
    if kind == 'OneCycleLR' and rise <= 1:
        raise InputError(
            f'param_scheduler: {kind} has {rise:.3g} {unit} for its rise (pct_start), and needs more than one'
        )
    return scheduler


class ScheduleHook(Hook):
    """Lets a resumed training follow the schedule of its config, where mmengine goes on with the checkpoint's.

    A schedule that is the checkpoint's goes on as it was. With any other (another length, another decay), the values
    of the optimiser become those that a training with this schedule from the start would have there.

    Args:
        resume: Whether the run continues from a checkpoint.
        name: Name of the checkpoint in the error.

    Raises:
        InputError: The schedule is another, and depends on metrics of the validations.
    """

    priority = 'VERY_HIGH'

    def __init__(self, resume: bool = True, name: str = 'the checkpoint') -> None:
        self.resume, self.name = resume, name
        self._is_another = False

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Leave out the function that ``OneCycleLR`` saves: no checkpoint with one is read, and a built one has it."""
        for state in _each(checkpoint.get('param_schedulers', ())):
            state.pop('anneal_func', None)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """It is called before mmengine gives the schedulers their states in the checkpoint."""
        states = checkpoint.get('param_schedulers')
        if states is None or not runner.param_schedulers or not self.resume:
            return
        now, before = list(_each(runner.param_schedulers)), list(_each(states))
        for scheduler, state in zip(now, before):
            if _is_of_metrics(scheduler) and state.keys() >= _STATE_OF_METRICS:  # what it learned holds for any length
                state.update(_plan(vars(scheduler)))
        if [_plan(vars(each)) for each in now] == [_plan(state) for state in before]:
            return
        changes = _changes(now, before)
        if metrics := next(filter(_is_of_metrics, now), None):
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
            {name: [each.state_dict() for each in own] for name, own in runner.param_schedulers.items()}
            if isinstance(runner.param_schedulers, dict)
            else [each.state_dict() for each in now]
        )

    def before_train(self, runner: Runner) -> None:
        """By now the optimiser has the values of the checkpoint."""
        if not self._is_another:
            return
        loop, length = runner.train_loop, None
        iterations = loop.iter
        if isinstance(loop, EpochBasedTrainLoop):
            length = len(loop.dataloader)
            if iterations // length != loop.epoch:  # an epoch had another length
                iterations = loop.epoch * length
        own = runner.param_schedulers
        for schedulers in own.values() if isinstance(own, dict) else [own]:
            replay(schedulers, iterations, length)


def replay(schedulers: list[_ParamScheduler], iterations: int, epoch: int | None) -> None:
    """Take schedulers from the start of the training to an iteration, as mmengine does, with their optimiser's values.

    Args:
        schedulers: All of one optimiser.
        iterations: How many the training has done.
        epoch: Iterations of an epoch; None for a training that counts no epochs.
    """
    for scheduler in schedulers:
        scheduler.last_step = scheduler._global_step = -1
        scheduler.optimizer._global_step = iterations  # mmengine warns if there was no step
        groups, name = scheduler.optimizer.param_groups, scheduler.param_name
        for group, base in zip(groups, scheduler.base_values):  # that of the checkpoint, where it has one
            group[name] = group.setdefault(f'initial_{name}', base)
        scheduler.base_values = [group[name] for group in groups]
    for scheduler in schedulers:
        scheduler.step()
    in_order = sorted(schedulers, key=lambda scheduler: scheduler.by_epoch)  # those of epochs last
    for done in range(1, iterations + 1):
        for scheduler in in_order:
            if not scheduler.by_epoch or (epoch and done % epoch == 0):
                scheduler.step()


def _each(schedulers: Any) -> Iterator[Any]:
    """Schedulers or their states, those of several optimisers one after the other."""
    for own in schedulers.values() if isinstance(schedulers, dict) else [schedulers]:
        yield from own


def _is_of_metrics(scheduler: _ParamScheduler) -> bool:
    return getattr(scheduler, 'need_val_args', False)


def _plan(state: dict) -> dict:
    """What of a scheduler's state is of its config."""
    return {key: value for key, value in state.items() if key not in _STATE | _STATE_OF_METRICS}


def _changes(now: list[_ParamScheduler], before: list[dict]) -> str:
    """Where schedulers differ from the states of the checkpoint, for a message."""
    if len(now) != len(before):
        return f'{len(before)} schedulers there, {len(now)} here'
    return '; '.join(
        f'{type(scheduler).__name__}.{key} {state.get(key)} there, {value} here'
        for scheduler, state in zip(now, before)
        for key, value in _plan(vars(scheduler)).items()
        if state.get(key) != value
    )
