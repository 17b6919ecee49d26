"""Running a tool as a process of its own, with its progress in sight and its output in a file."""

import os
import re
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
        shown = _bar if console.is_terminal else _lines
        with log.open('w') as file, shown(title, console) as show:
            for line in process.stdout:
                file.write(line)
                tail.append(line)
                if step := _STEP.search(line):
                    loss = _LOSS.search(line)
                    show(int(step[1]), int(step[2]), f'loss {float(loss[1]):.3f}' if loss else '')
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


@contextmanager
def _bar(title: str, console: Console) -> Iterator[Callable[[int, int, str], None]]:
    """Gives the function that shows steps done, steps in all and the loss, on a terminal."""
    columns = (
        TextColumn('{task.description:<32}'),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn('{task.fields[loss]:<11}'),
        TimeElapsedColumn(),
        TextColumn('left'),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        row = bar.add_task(title, total=None, loss='starting')
        yield lambda done, total, loss: bar.update(row, completed=done, total=total, loss=loss)


@contextmanager
def _lines(title: str, console: Console) -> Iterator[Callable[[int, int, str], None]]:
    """As :func:`_bar`, where no bar can be drawn."""
    console.print(f'{title}: starting')
    start = last = time.monotonic()

    def show(done: int, total: int, loss: str) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _QUIET_SECONDS:
            last = now
            console.print(f'{title}: {done}/{total}  {loss}'.rstrip())

    yield show
    console.print(f'{title}: done in {time.monotonic() - start:.0f} s')


def python(script: Path, *arguments: str | Path) -> list[str]:
    """The command that runs a script with this interpreter, unbuffered."""
    return [sys.executable, '-u', str(script), *map(str, arguments)]
