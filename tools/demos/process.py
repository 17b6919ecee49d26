"""Running a tool as a process of its own, with its progress in sight and its output in a file."""

import os
import re
import subprocess
import sys
import time
from collections import deque
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from icconv_mm.errors import UserError

_STEP = re.compile(r'(?:Iter|Epoch)\(\w+\)\s+(?:\[\d+\])?\[\s*(\d+)/(\d+)\]')
_LOSS = re.compile(r'\bloss: ([\d.]+|nan|inf)')
# glibc then keeps the memory of large tensors between steps; to map it anew costs page faults, 8 % of a step
_KEPT_MEMORY = {'MALLOC_MMAP_THRESHOLD_': str(2**30), 'MALLOC_TRIM_THRESHOLD_': str(2**30)}
_QUIET_SECONDS = 10.0  # between two lines where no progress bar can be drawn


class ToolError(UserError):
    """A tool ended with an error; the message has the end of its output."""


def run_tool(command: list[str], log: Path, title: str, console: Console, env: dict[str, str]) -> None:
    """Run a command, show the steps that mmengine logs, and wait for its end.

    Args:
        command: The program and its arguments.
        log: Takes its output.
        title: Title of the process, shown with the progress.
        console: Console for the progress: a bar on a terminal, else a line every ten seconds.
        env: Environment variables added to this process's own.

    Raises:
        ToolError: Its exit status was not 0.
        KeyboardInterrupt: As pressed; the process has ended by then.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    tail: deque[str] = deque(maxlen=15)
    has_bar = console.is_terminal
    start = last = time.monotonic()
    if not has_bar:
        console.print(f'{title}: starting')
    env = _KEPT_MEMORY | os.environ | env
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors='replace', env=env
    )
    try:
        with log.open('w') as file, Progress(*_columns(), console=console, disable=not has_bar) as bar:
            row = bar.add_task(title, total=None, loss='starting')
            for line in process.stdout:
                file.write(line)
                tail.append(line)
                if not (step := _STEP.search(line)):
                    continue
                loss = f'loss {float(found[1]):.3f}' if (found := _LOSS.search(line)) else ''
                bar.update(row, completed=int(step[1]), total=int(step[2]), loss=loss)
                if not has_bar and (now := time.monotonic()) - last >= _QUIET_SECONDS:
                    last = now
                    console.print(f'{title}: {step[1]}/{step[2]}  {loss}'.rstrip())
        status = process.wait()
    except BaseException:  # Ctrl-C above all: never leave a training behind
        _stop(process)
        raise
    if status:
        raise ToolError(f'{title} failed with exit status {status}; the end of {log}:\n\n{"".join(tail)}')
    if not has_bar:
        console.print(f'{title}: done in {time.monotonic() - start:.0f} s')


def _columns() -> tuple[str | ProgressColumn, ...]:
    texts = TextColumn('{task.description:<32}'), TextColumn('{task.fields[loss]:<11}')
    return texts[0], BarColumn(), TaskProgressColumn(), texts[1], TimeElapsedColumn(), 'left', TimeRemainingColumn()


def _stop(process: subprocess.Popen) -> None:
    """End a process: ask, then insist."""
    process.terminate()
    try:
        process.wait(timeout=5)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        process.kill()
        process.wait()


def python(script: Path, *arguments: str | Path) -> list[str]:
    """The command that runs a script with this interpreter, unbuffered."""
    return [sys.executable, '-u', str(script), *map(str, arguments)]
