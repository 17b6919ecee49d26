"""A hook that shows the progress of a training on a terminal, with the time that is left."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class ProgressBarHook(Hook):
    """Shows a bar on a terminal from the first iteration on: iterations, loss, time and time left.

    Where the output is no terminal, as in a file, it shows nothing. Log lines appear above the bar.
    """

    priority = 'VERY_LOW'

    def __init__(self) -> None:
        self._progress: Progress | None = None

    @contextmanager
    def shown(self, runner: Runner, console: Console | None = None) -> Iterator[None]:
        """Shows the bar within the context, and removes it at its end, also after an error.

        Args:
            runner: The runner, whose log lines are written above the bar.
            console: Where it is shown; by default the standard output.
        """
        console = console or Console(file=sys.stdout)
        if not (console.is_terminal and is_main_process()):
            yield
            return
        columns = TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn()
        times = TimeElapsedColumn(), TextColumn('left:'), TimeRemainingColumn(), TextColumn('{task.fields[loss]}')
        own = [each for each in runner.logger.handlers if getattr(each, 'stream', None) is sys.stdout]
        streams = [(each, each.stream) for each in own if isinstance(each, logging.StreamHandler)]
        with Progress(*columns, *times, console=console, transient=True, speed_estimate_period=120) as progress:
            for handler, _ in streams:
                handler.setStream(sys.stdout)  # rich's, while the bar is shown
            self._progress, self._task = progress, progress.add_task('training', total=None, loss='')
            try:
                yield
            finally:
                self._progress = None
                for handler, stream in streams:
                    handler.setStream(stream)

    def before_train(self, runner: Runner) -> None:
        """Starts at the iteration that a training resumes from."""
        if self._progress is not None:
            self._progress.reset(self._task, completed=runner.iter, total=runner.max_iters)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        """Shows the loss of the iteration; the length may have changed."""
        if self._progress is not None:
            loss = (outputs or {}).get('loss')
            text = '' if loss is None else f'loss {float(loss):.3g}'
            self._progress.update(self._task, completed=runner.iter + 1, total=runner.max_iters, loss=text)

    def before_val_epoch(self, runner: Runner) -> None:
        if self._progress is not None:
            self._progress.update(self._task, description='validation')

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        if self._progress is not None:
            self._progress.update(self._task, description='training')
