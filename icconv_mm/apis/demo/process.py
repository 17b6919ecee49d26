"""Running a tool as a process of its own, with its progress in sight and its output in a file."""

import os
import re
import subprocess
import sys
import time
from collections import deque
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from icconv_mm.errors import UserError

_STEP = re.compile(r'(?:Iter|Epoch)\(\w+\)\s+(?:\[\d+\])?\[\s*(\d+)/(\d+)\]')
_LOSS = re.compile(r'\bloss: ([\d.]+|nan|inf)')
_QUIET_SECONDS = 10.0  # between two lines where no progress bar can be drawn


class ToolError(UserError):
    """A tool ended with an error; the message has the end of its output."""


def run_tool(command: list[str], log: Path, title: str, console: Console, env: dict[str, str]) -> None:
    """Run a command, show the steps that mmengine logs, and wait for its end.

    Args:
        command: The program and its arguments.
        log: Takes its output.
        title: What it does, shown with the progress.
        console: Where progress is shown: a bar on a terminal, else a line every ten seconds.
        env: Environment variables added to this process's own.

    Raises:
        ToolError: Its exit status was not 0.
        KeyboardInterrupt: As pressed; the process has ended by then.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    tail: deque[str] = deque(maxlen=15)
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors='replace', env=os.environ | env
    )
    try:
        with log.open('w') as file, _progress(title, console) as progress:
            for line in process.stdout:
                file.write(line)
                tail.append(line)
                progress.read(line)
        status = process.wait()
    except BaseException:  # Ctrl-C above all: never leave a training behind
        _stop(process)
        raise
    if status:
        raise ToolError(f'{title} failed with exit status {status}; the end of {log}:\n\n{"".join(tail)}')


def _stop(process: subprocess.Popen) -> None:
    """End a process: ask, then insist."""
    process.terminate()
    try:
        process.wait(timeout=5)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        process.kill()
        process.wait()


def _progress(title: str, console: Console) -> '_Bar | _Lines':
    return _Bar(title, console) if console.is_terminal else _Lines(title, console)


class _Reader:
    """Finds steps and losses in lines of mmengine's log."""

    def __init__(self, title: str, console: Console):
        self.title, self.console = title, console
        self.loss = ''

    def read(self, line: str) -> None:
        step = _STEP.search(line)
        if step:
            loss = _LOSS.search(line)
            self.loss = f'loss {float(loss[1]):.3f}' if loss else ''
            self.show(int(step[1]), int(step[2]))

    def show(self, done: int, total: int) -> None:
        raise NotImplementedError


class _Bar(_Reader):
    def __enter__(self) -> '_Bar':
        columns = (
            TextColumn('{task.description:<32}'),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn('{task.fields[loss]:<11}'),
            TimeElapsedColumn(),
            TextColumn('left'),
            TimeRemainingColumn(),
        )
        self.bar = Progress(*columns, console=self.console)
        self.bar.start()
        self.row = self.bar.add_task(self.title, total=None, loss='starting')
        return self

    def __exit__(self, kind, error, trace) -> None:
        self.bar.stop()

    def show(self, done: int, total: int) -> None:
        self.bar.update(self.row, completed=done, total=total, loss=self.loss)


class _Lines(_Reader):
    def __enter__(self) -> '_Lines':
        self.console.print(f'{self.title}: starting')
        self.start = self.last = time.monotonic()
        return self

    def __exit__(self, kind, error, trace) -> None:
        if kind is None:
            self.console.print(f'{self.title}: done in {time.monotonic() - self.start:.0f} s')

    def show(self, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self.last >= _QUIET_SECONDS:
            self.last = now
            self.console.print(f'{self.title}: {done}/{total}  {self.loss}'.rstrip())


def python(script: Path, *arguments: str | Path) -> list[str]:
    """The command that runs a script with this interpreter, unbuffered."""
    return [sys.executable, '-u', str(script), *map(str, arguments)]
