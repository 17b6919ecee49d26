"""Functions that adapt configs of schedulers to another length of the training."""

import math

from icconv_mm.config_tree import as_list

# The settings that a scheduler counts in epochs or iterations, and their lowest values.
_COUNTS = {'begin': 0, 'end': 1, 'T_max': 1, 'step_size': 1, 'total_steps': 1, 'periods': 1, 'milestones': 1}


def stretch(scheduler: dict, kind: str, ratio: float) -> None:
    """Changes a scheduler's config to that of a training ``ratio`` times as long.

    Counts that become iterations when the length of an epoch is known (``convert_to_iter_based``) keep fractions of
    epochs.
    """
    step, whole = ratio * scheduler.get('step_size', 1), not scheduler.get('convert_to_iter_based')
    if kind.startswith('Exponential') or ('step_size' in scheduler and step < 1 and whole):
        scheduler['gamma'] = scheduler.get('gamma', 0.1) ** (1 / step)  # the decay of each step
    scale_counts(scheduler, kind, ratio, whole)


def scale_counts(scheduler: dict, kind: str, ratio: float, whole: bool = True) -> None:
    """Multiplies a scheduler's counts, by default to whole numbers."""
    former = span_of(scheduler) if 'end' in scheduler else 0
    spans = 'end' in scheduler and math.isclose(scheduler.get('T_max') or 0, span_of(scheduler))
    for key, least in _COUNTS.items():
        if (value := scheduler.get(key)) is not None:
            scaled = [max(round(ratio * each), least) if whole else ratio * each for each in as_list(value)]
            scheduler[key] = scaled if isinstance(value, (list, tuple)) else scaled[0]
    if whole and 'end' in scheduler:
        scheduler['end'] = max(scheduler['end'], scheduler.get('begin', 0) + 1)
    if spans:
        scheduler['T_max'] = span_of(scheduler)
    if whole and former not in (0, 1):  # a factor of one step, as in RTMO's configs, is intended
        skip_short_warm_up(scheduler, kind, ('Linear', 'Constant'))


def span_of(scheduler: dict) -> float:
    return scheduler['end'] - scheduler.get('begin', 0)


def skip_short_warm_up(scheduler: dict, kind: str, kinds: tuple[str, ...]) -> None:
    """Sets a warm-up of one step to the full value.

    mmengine's warm-ups (``LinearLR``, ``ConstantLR``, the momentum's) reach the full value in their last step. A single
    step is the first one, too: the value would stay at the start for the whole training.
    """
    if kind.startswith(kinds) and 'end' in scheduler and span_of(scheduler) < 2:
        if kind.startswith('Constant'):
            scheduler['factor'] = 1.0
        else:
            scheduler['start_factor'] = max(scheduler.get('start_factor', 1 / 3), scheduler.get('end_factor', 1.0))
