"""Hooks that log a run's summary when it starts and draw its curves when it ends."""

import itertools
import json
import logging
import math
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from mmengine.dist import get_world_size, is_main_process
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.runner import BaseLoop, EpochBasedTrainLoop, Runner

from icconv_mm.errors import message_of, printable
from icconv_mm.versions import is_installed
from icconv_mm_runtime.drawing import color_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure


NAME_LETTERS = 40  # length of a class name in a figure
_LAST_STEP = 1 << 53  # largest integer that a float counts to
_NO_METRICS = ('step', 'epoch', 'time', 'data_time')  # entries of a validation's log that are no metrics


class OpeningHook(Hook):
    """Logs a summary first: config, network, dataset, schedule, machine. The saved config has everything else.

    Args:
        name: Name of the config.
        network: Types of the model and its backbone.
    """

    priority = 'HIGHEST'

    def __init__(self, name: str, network: Sequence[str]) -> None:
        self.name, self.network = name, network

    def before_train(self, runner: Runner) -> None:
        loop = runner.train_loop
        epochs = isinstance(loop, EpochBasedTrainLoop)
        length = f'{loop.max_epochs} epochs, {loop.max_iters} iterations' if epochs else f'{loop.max_iters} iterations'
        data = [f'{len(loop.dataloader.dataset)} images to train']
        if isinstance(runner._val_loop, BaseLoop):
            data.append(f'{len(runner.val_loop.dataloader.dataset)} to validate')
        batch = loop.dataloader.batch_size or getattr(loop.dataloader.batch_sampler, 'batch_size', 'several')
        self._say(runner, [*data, f'batches of {batch}', length])

    def before_test(self, runner: Runner) -> None:
        self._say(runner, [f'{len(runner.test_loop.dataloader.dataset)} images to test'])

    def _say(self, runner: Runner, data: Sequence[str]) -> None:
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        parts, count = ', '.join(self.network), sum(parameter.numel() for parameter in model.parameters()) / 1e6
        device = next((str(parameter.device) for parameter in model.parameters()), 'cpu')
        runner.logger.info(
            f'{self.name} -> {runner.work_dir}\n'
            f'  network: {parts}, {count:.1f} million parameters\n'
            f'  data: {", ".join(data)}\n'
            f'  machine: {device}, {get_world_size()} processes, torch {torch.__version__}, seed {runner.seed}'
        )


class CurvesHook(Hook):
    """Draws losses, metrics and the learning rate against iterations into ``results.png`` after training."""

    priority = 'LOWEST'

    def after_train(self, runner: Runner) -> None:
        if is_main_process() and is_installed('matplotlib'):
            steps = 1
            if isinstance(runner.train_loop, EpochBasedTrainLoop):
                steps = len(runner.train_loop.dataloader)
            with warning_after_training('drawing results.png'):
                if (path := draw_curves(Path(runner.work_dir), steps)) is not None:
                    runner.logger.info(f'losses, metrics and learning rate: {path}')


@contextmanager
def warning_after_training(what: str) -> Iterator[None]:
    """Turns an exception into a warning: a finished training does not fail because of a figure."""
    try:
        yield
    except Exception as error:
        said = printable(message_of(error).splitlines()[0])
        text = f'the training has ended well, but {what} failed: {type(error).__name__}: {said:.300}'
        print_log(text, 'current', logging.WARNING)
        print_log(printable(traceback.format_exc(), '\n'), 'current', logging.DEBUG)


def draw_curves(work_dir: Path, steps: int = 1) -> Path | None:
    """Draws ``results.png`` from the logs of all runs in a folder; returns its path, or None without logs.

    Args:
        work_dir: The folder; a resumed or new run replaces what earlier ones logged from its first iteration on.
        steps: Iterations per epoch, for validations that are numbered by epochs.
    """
    groups: dict[str, dict[str, dict[int, float]]] = {'loss': {}, 'metric': {}, 'learning rate': {}}
    for file in sorted(work_dir.glob('*/vis_data/scalars.json')):
        entries = _logged(file)
        trained = [('lr' in entry or 'iter' in entry) for entry in entries]
        places = [
            entry.get('step', entry.get('iter', 0)) * (1 if is_training else steps)
            for entry, is_training in zip(entries, trained)
        ]
        _forget(groups, min(itertools.compress(places, trained), default=math.inf))
        for entry, is_training, place in zip(entries, trained, places):
            for key, value in entry.items():
                if not isinstance(value, (int, float)):  # a list with a value per class
                    continue
                name = 'learning rate' if key.endswith('lr') else 'loss' if 'loss' in key else None
                if not is_training:
                    name = None if key in _NO_METRICS or value < 0 else 'metric'
                if name is not None:
                    groups[name].setdefault(key, {})[place] = value
    groups = {name: group for name, group in groups.items() if group}
    if not groups:
        return None
    path = work_dir / 'results.png'
    with drawn_figure(path, (6 * len(groups), 4.5)) as figure:
        for axis, (name, group) in zip(np.atleast_1d(figure.subplots(1, len(groups))), groups.items()):
            curves = sorted(group.items(), key=lambda item: (len(item[0]), item[0]))[:12]
            for number, (key, values) in enumerate(curves):
                color, marker = np.array(color_of(number)) / 255, '.' * (len(values) < 30)
                axis.plot(*zip(*sorted(values.items())), label=key[:NAME_LETTERS], color=color, marker=marker)
            axis.set_xlabel('iteration')
            axis.set_title(name)
            axis.legend(fontsize=7)
            axis.grid(alpha=0.3)
    return path


@contextmanager
def drawn_figure(path: Path, size: tuple[float, float]) -> 'Iterator[Figure]':
    """Yields a figure and saves it at the end; its text is not parsed as math, since class names may contain ``$``."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({'text.parse_math': False, 'text.usetex': False}):
        figure = Figure(figsize=size, layout='constrained')
        yield figure
        figure.savefig(path, dpi=110)


def _logged(file: Path) -> list[dict[str, Any]]:
    """Returns the entries of a log that have a step; skips a line that was cut off when a run was killed."""
    entries = []
    for line in file.read_text(errors='replace').splitlines():
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            continue
        place = entry.get('step', entry.get('iter', 0)) if isinstance(entry, dict) else None
        if isinstance(place, (int, float)) and abs(place) < _LAST_STEP:
            entries.append(entry)
    return entries


def _forget(groups: Mapping[str, Mapping[str, dict[int, float]]], begin: float) -> None:
    """Removes the logged values from iteration ``begin`` on."""
    for values in (values for group in groups.values() for values in group.values()):
        for place in [place for place in values if place >= begin]:
            del values[place]
