"""A hook that shows the progress of a training on a terminal, with the time that is left."""

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from rich.console import Console
from rich.file_proxy import FileProxy
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

_REFRESH = 0.2  # seconds between two states of the bar


class ProgressBarHook(Hook):
    """Shows a bar on a terminal while a training runs: iterations, loss, time and time left, without validations.

    Where the output is no terminal, as in a file, it shows nothing. Log lines appear above the bar.
    """

    priority = 'VERY_LOW'

    def __init__(self) -> None:
        self._progress: Progress | None = None

    @contextmanager
    def shown(self, runner: Runner, console: Console | None = None) -> Iterator[None]:
        """Lets the bar be shown within the context, and removes it at its end, also after an error.

        Args:
            runner: The runner, whose log lines are written above the bar.
            console: Where it is shown; by default the standard output.
        """
        console = console or Console(file=sys.stdout, force_terminal=sys.stdout.isatty())
        if not (console.is_terminal and is_main_process()):
            yield
            return
        columns = TextColumn('training'), BarColumn(), MofNCompleteColumn()
        times = TimeElapsedColumn(), TextColumn('left:'), TimeRemainingColumn(), TextColumn('{task.fields[loss]}')
        # no thread refreshes it: a process that is forked while one holds a lock would wait for ever
        options = dict(transient=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False)
        self._progress, self._shown = Progress(*columns, *times, console=console, **options), 0.0
        self._task = self._progress.add_task('', total=None, loss='')
        streams = [handler for handler in runner.logger.handlers if isinstance(handler, logging.StreamHandler)]
        streams = [stream for stream in streams if stream.stream is sys.stdout]
        for handler in streams:
            handler.setStream(FileProxy(console, sys.stdout))
        try:
            yield
        finally:
            self._progress.stop()
            self._progress = None
            for handler in streams:
                handler.setStream(sys.stdout)

    def before_train(self, runner: Runner) -> None:
        """Begins at the iteration that a training resumes from."""
        if self._progress is not None:
            self._progress.reset(self._task, completed=runner.iter, total=runner.max_iters)
            self._progress.start()

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        """Shows the loss of the iteration; the length may have changed."""
        if self._progress is None or time.monotonic() - self._shown < _REFRESH:
            return
        self._shown, loss = time.monotonic(), (outputs or {}).get('loss')
        text = '' if loss is None else f'loss {torch.as_tensor(loss).item():.3g}'
        self._progress.update(self._task, completed=runner.iter + 1, total=runner.max_iters, loss=text)
        self._progress.refresh()

    def before_val_epoch(self, runner: Runner) -> None:
        """Hides the bar, because evaluators print."""
        if self._progress is not None:
            self._progress.stop()

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        if self._progress is not None:
            self._progress.start()
