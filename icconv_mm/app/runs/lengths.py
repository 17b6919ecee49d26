"""What configs count in epochs or iterations, besides schedulers: the one table for trainings of another length."""

import copy
import re
from collections.abc import Callable, Mapping
from typing import Any

from mmengine.config import Config
from mmengine.hooks import CheckpointHook
from mmengine.logging import print_log
from mmengine.runner import EpochBasedTrainLoop, Runner

from icconv_mm.app.runs.schedules import checked_schedulers, is_of_metrics, replay, stretch
from icconv_mm.config_tree import kind_of, walk, walk_dicts
from icconv_mm.errors import ArgumentError

# Options of hooks that grow with a training's length, and their defaults where these matter: of mmengine, mmdet,
# mmpose, mmpretrain, mmyolo and this package.
COUNTED: dict[str, dict[str, Any]] = {
    'AtomicCheckpointHook': {'interval': None, 'save_begin': None},
    'CheckpointHook': {'interval': None, 'save_begin': None},
    'DenseCLHook': {'start_iters': 1000},
    'EMAHook': {'begin_epoch': None, 'begin_iter': None},
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
# Hooks whose counts are no part of a training's length: they log, draw, look, average, or count images at its end.
STAYING = frozenset([
    'BadCaseAnalysisHook', 'CheckInvalidLossHook', 'DetVisualizationHook', 'EarlyStoppingHook', 'EmptyCacheHook',
    'GroundingVisualizationHook', 'LastEpochsHook', 'LoggerHook', 'MeanTeacherHook', 'MemoryProfilerHook',
    'MultiTaskVisualizationHook', 'NPUProfilerHook', 'NaiveVisualizationHook', 'PoseVisualizationHook', 'PreciseBNHook',
    'ProfilerHook', 'ResumableRandomnessHook', 'SegVisualizationHook', 'SimSiamHook', 'TrackVisualizationHook',
    'VisualizationHook',
])  # fmt: skip
# Options of models that count, whatever has them, and their defaults by type: mmdet's TOOD, BoxInst and DropBlock.
_OF_MODELS = {'initial_epoch': None, 'warmup_iters': None}
_DEFAULTS = {'BoxInstMaskHead': {'warmup_iters': 10000}, 'DropBlock': {'warmup_iters': 2000}}
_LOOP = ('val_begin', 'val_interval', 'dynamic_intervals')
_INTERVALS = ('interval', 'val_interval')  # 1 and -1 have a meaning of their own
_SAYS_SO = re.compile(r'epoch|iter|begin|end|interval')


def set_length(cfg: Config, *, epochs: int | None = None, iters: int | None = None) -> None:
    """Sets the number of epochs or iterations and scales everything that is counted in them.

    That is where schedulers begin, end and step, warm-up included, and what this module lists; a note names options of
    other hooks that may count them, too.

    Raises:
        ArgumentError: The number is less than 1, or the config counts in the other unit.
    """
    name, given, key = ('epochs', epochs, 'max_epochs') if iters is None else ('iters', iters, 'max_iters')
    if given is None:
        return
    if epochs is not None and iters is not None:
        raise ArgumentError('iters', 'the length is given by --epochs as well')
    if given < 1:
        raise ArgumentError(name, f'a training needs 1 or more, got {given}')
    former = (cfg.get('train_cfg') or {}).get(key)
    if former is None:
        other = 'iters' if name == 'epochs' else 'epochs'
        raise ArgumentError(name, f'{cfg.filename} counts its training in {other}: give --{other}')
    ratio = given / former
    if given == former:
        return
    unknown = []
    nodes = tuple(walk(cfg))
    for node in nodes:
        if node.location == 'train_cfg':
            _scale(node.cfg, dict.fromkeys(_LOOP), ratio)
        elif node.part == 'model':
            _scale(node.cfg, _OF_MODELS | _DEFAULTS.get(node.kind, {}), ratio)
        elif node.part in ('default_hooks', 'custom_hooks') and node.location.count('.') == 1 and node.kind:
            kind = node.kind
            _scale(node.cfg, COUNTED.get(kind, {}), ratio)
            if kind not in COUNTED and kind not in STAYING:
                unknown += [f'{kind}.{key} = {value}' for key, value in node.cfg.items() if _counts(key, value)]
    cfg.train_cfg[key] = given
    if (interval := cfg.train_cfg.get('val_interval', 1)) > 1:
        cfg.train_cfg.val_interval = min(interval, given)
    for node in nodes:
        if node.part == 'param_scheduler':
            stretch(node.cfg, node.kind, ratio)
    if unknown:
        what = f'may count the {name} of a training of {former}, and stay as they are'
        print_log(f'{", ".join(unknown)} {what}: --cfg-options changes them', 'current')


def _scale(settings: dict, counted: Mapping[str, Any], ratio: float) -> None:
    """Multiplies the counts of a part of a config, given with their defaults, for another length."""
    for key, default in counted.items():
        if settings.get(key, default) is not None:
            settings[key] = scaled(key, settings.get(key, default), ratio)


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
        return type(value)({new(number): setting for number, setting in value.items()})
    if isinstance(value, (list, tuple)):
        return type(value)(
            {**item, 'action_epoch': new(item['action_epoch'])}
            if isinstance(item, Mapping)
            else type(item)((new(item[0]), *item[1:]))
            for item in value
        )
    return new(value) if isinstance(value, int) and not isinstance(value, bool) else value


def change_length(
    runner: Runner, length: int, done: float, interval: int | None = None, schedulers: tuple[Any, float] = (None, 1.0)
) -> None:
    """Changes the length of a running training, with the counts of its hooks and schedulers.

    Schedulers that look at metrics, and those of several optimisers, cannot be replayed: they stay.

    Args:
        runner: The runner.
        length: The epochs or iterations of the whole training.
        done: How many are over; of an epoch, a fraction may be.
        interval: Epochs or iterations from one validation, with its checkpoint, to the next; by default as it is.
        schedulers: Configs of the schedulers, and the length divided by the one that they are for.
    """
    loop = runner.train_loop
    is_by_epoch = isinstance(loop, EpochBasedTrainLoop)
    steps = len(loop.dataloader) if is_by_epoch else 1
    ratio = length / (loop.max_epochs if is_by_epoch else loop.max_iters)
    if is_by_epoch:
        loop._max_epochs = length
    loop._max_iters = length * steps
    if interval is not None:
        loop.val_interval, loop.dynamic_milestones, loop.dynamic_intervals = interval, [0], [interval]
    for hook in runner.hooks:
        if interval is not None and isinstance(hook, CheckpointHook) and hook.interval > 0:
            hook.interval = interval  # saving each short epoch would take the time of training
        scale_running(hook, ratio, int(done), length)
    scheduler_configs, total = schedulers
    former = runner.param_schedulers
    if (
        scheduler_configs
        and length > done
        and not (isinstance(former, Mapping) or any(map(is_of_metrics, former or ())))
    ):
        configs = copy.deepcopy(scheduler_configs)
        for scheduler in walk_dicts(configs):
            stretch(scheduler, kind_of(scheduler), total)
        runner.param_schedulers = runner.build_param_scheduler(checked_schedulers(runner, configs))
        replay(runner.param_schedulers, round(done * steps), steps if is_by_epoch else None)


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
            if key == 'num_last_epochs':  # counted from the end
                is_over = done >= (length / ratio) - getattr(hook, key)
                if not is_over:
                    last = min(round(ratio * getattr(hook, key)), length - done)
                    setattr(hook, key, max(last, 0))
                continue

            def change(number: int) -> int:
                return number if number <= done - 1 else max(round(ratio * number), done)

            setattr(hook, key, scaled(key, getattr(hook, key), ratio, change))
