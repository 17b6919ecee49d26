"""What configs count in epochs or iterations, besides schedulers: the one table for trainings of another length."""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from mmengine.config import Config

from icconv_mm.config_tree import kind_of, walk_dicts

# Options of hooks that grow with a training's length, and their defaults where these matter: of mmengine, mmdet,
# mmpose, mmpretrain, mmyolo and this package.
COUNTED: dict[str, dict[str, Any]] = {
    'AtomicCheckpointHook': {'interval': None, 'save_begin': None},
    'CheckpointHook': {'interval': None, 'save_begin': None},
    'DenseCLHook': {'start_iters': 1000},
    'EMAHook': {'begin_epoch': None, 'begin_iter': None},
    'LastEpochsHook': {'epochs': None},
    'PPYOLOEParamSchedulerHook': {'total_epochs': None, 'warmup_epochs': 5},
    'PipelineSwitchHook': {'switch_epoch': None},
    'RTMOModeSwitchHook': {'epoch_attributes': None},
    'SwAVHook': {'epoch_queue_starts': 15},
    'SwitchRecipeHook': {'schedule': None},
    'WarmupParamHook': {'warmup_epochs': None},
    'YOLOXModeSwitchHook': {'num_last_epochs': 15},
    'YOLOXPoseModeSwitchHook': {'num_last_epochs': 20},
    'YOLOv5ParamSchedulerHook': {'max_epochs': None, 'warmup_epochs': 3},
}
# Hooks whose intervals are no part of a training's length: they log, draw, look, or average.
STAYING = frozenset([
    'BadCaseAnalysisHook', 'CheckInvalidLossHook', 'DetVisualizationHook', 'EarlyStoppingHook', 'EmptyCacheHook',
    'GroundingVisualizationHook', 'LoggerHook', 'MeanTeacherHook', 'MemoryProfilerHook', 'MultiTaskVisualizationHook',
    'NPUProfilerHook', 'NaiveVisualizationHook', 'PoseVisualizationHook', 'PreciseBNHook', 'ProfilerHook',
    'ResumableRandomnessHook', 'SegVisualizationHook', 'SimSiamHook', 'TrackVisualizationHook', 'VisualizationHook',
])  # fmt: skip
_LOOP = ('val_begin', 'val_interval', 'dynamic_intervals')
_MODEL = ('initial_epoch',)  # mmdet's TOOD
_INTERVALS = ('interval', 'val_interval')  # 1 and -1 have a meaning of their own
_SAYS_SO = re.compile(r'epoch|iter|begin|end|interval')


def scale_counts(cfg: Config, ratio: float) -> list[str]:
    """Multiplies the counts of a config's hooks, training loop and model for a training ``ratio`` times as long.

    Returns:
        Options of other hooks that may count epochs or iterations, as ``Hook.option = value``; they are unchanged.
    """
    loop = cfg.train_cfg
    for key in _LOOP:
        if loop.get(key) is not None:
            loop[key] = scaled(key, loop[key], ratio)
    for part in walk_dicts(cfg.get('model') or {}):
        for key in _MODEL:
            if isinstance(part.get(key), int):
                part[key] = scaled(key, part[key], ratio)
    unknown = []
    for hook in _hooks_of(cfg):
        kind = kind_of(hook).rpartition('.')[2]
        for key, default in COUNTED.get(kind, {}).items():
            if hook.get(key, default) is not None:
                hook[key] = scaled(key, hook.get(key, default), ratio)
        if kind not in COUNTED and kind not in STAYING:
            unknown += [f'{kind}.{key} = {value}' for key, value in hook.items() if _counts(key, value)]
    return unknown


def _hooks_of(cfg: Config) -> Iterator[dict]:
    for hook in (*(cfg.get('default_hooks') or {}).values(), *(cfg.get('custom_hooks') or ())):
        if isinstance(hook, Mapping) and kind_of(hook):
            yield hook


def _counts(key: str, value: Any) -> bool:
    is_integer = isinstance(value, int) and not isinstance(value, bool)
    return is_integer and bool(_SAYS_SO.search(key))


def scaled(key: str, value: Any, ratio: float, change: Callable[[int], int] | None = None) -> Any:
    """Returns the value of an option for a training ``ratio`` times as long.

    Args:
        key: The option.
        value: A number, ``{number: ...}``, pairs that begin with a number, or dicts with an ``action_epoch``.
        ratio: The length of the new training divided by that of the former one.
        change: Maps a number to the new one; by default the nearest to the product, at least 1 of an interval.
    """
    least = 1 if key in _INTERVALS else 0

    def new(number: int) -> int:
        if change is not None:
            return change(number)
        return number if least and number <= 1 else max(round(ratio * number), least)

    if isinstance(value, Mapping):
        return type(value)({new(number): own for number, own in value.items()})
    if isinstance(value, (list, tuple)):
        return type(value)(
            {**each, 'action_epoch': new(each['action_epoch'])}
            if isinstance(each, Mapping)
            else type(each)((new(each[0]), *each[1:]))
            for each in value
        )
    return new(value) if isinstance(value, int) and not isinstance(value, bool) else value


def scale_running(hook: Any, ratio: float, done: int, length: int) -> None:
    """Changes the counts of a hook of a running training, of which ``done`` epochs or iterations are over.

    What has happened stays, and what has not is not moved to a time that is over.

    Args:
        hook: The hook.
        ratio: The new length divided by the former one.
        done: Epochs or iterations that are done.
        length: The new length.
    """
    for kind in type(hook).__mro__:
        for key in COUNTED.get(kind.__name__, ()):
            if key in _INTERVALS or getattr(hook, key, None) is None:
                continue
            if key in ('num_last_epochs', 'epochs'):  # counted from the end
                is_over = done >= (length / ratio) - getattr(hook, key)
                if not is_over:
                    last = min(round(ratio * getattr(hook, key)), length - done)
                    setattr(hook, key, max(last, 0))
                continue

            def change(number: int) -> int:
                return number if number <= done - 1 else max(round(ratio * number), done)

            setattr(hook, key, scaled(key, getattr(hook, key), ratio, change))
