"""Running tools as processes of their own, with their progress in sight and their output in files."""

import os
import re
import subprocess
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
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
from icconv_tools.processes import Children

_STEP = re.compile(r'(?:Iter|Epoch)\(\w+\)\s+(?:\[\d+\])?\[\s*(\d+)/(\d+)\]')
_LOSS = re.compile(r'\bloss: ([\d.]+|nan|inf)')
# glibc then keeps the memory of large tensors between steps; to map it anew costs page faults, 8 % of a step
_KEPT_MEMORY = {'MALLOC_MMAP_THRESHOLD_': str(2**30), 'MALLOC_TRIM_THRESHOLD_': str(2**30)}
_QUIET_SECONDS = 10.0  # between two lines where no progress bar can be drawn


class ToolError(UserError):
    """A tool ended with an error; the message has the end of its output."""


@dataclass(frozen=True)
class Tool:
    """A process to run.

    Attributes:
        command: The program and its arguments.
        log: Takes its output.
        title: Text beside the progress.
    """

    command: list[str]
    log: Path
    title: str


def run_tools(tools: Sequence[Tool], console: Console, env: dict[str, str]) -> None:
    """Run commands at once, show the steps that mmengine logs, and wait for their end.

    Args:
        tools: What to run. Several share the processor's cores.
        console: Console for the progress: a bar on a terminal, else a line every ten seconds.
        env: Environment variables added to this process's own.

    Raises:
        ToolError: The exit status of one was not 0; the others have been ended.
        KeyboardInterrupt: As pressed; the processes have ended by then.
    """
    shared = {'OMP_NUM_THREADS': str(max(1, (os.cpu_count() or 1) // len(tools)))} if len(tools) > 1 else {}
    env = _KEPT_MEMORY | shared | os.environ | env
    output = dict(stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors='replace')
    with (
        Progress(*_columns(), console=console, disable=not console.is_terminal) as bar,
        ThreadPoolExecutor(len(tools)) as pool,
        Children() as children,
    ):
        processes = [children.start(tool.command, env, **output) for tool in tools]
        for future in as_completed([pool.submit(_follow, *pair, bar) for pair in zip(tools, processes)]):
            future.result()


def _follow(tool: Tool, process: subprocess.Popen, bar: Progress) -> None:
    """Write what a process says into its log, show its steps, and see how it ends."""
    tail: deque[str] = deque(maxlen=15)
    has_bar, console = not bar.disable, bar.console
    start = last = time.monotonic()
    if not has_bar:
        console.print(f'{tool.title}: starting')
    row = bar.add_task(tool.title, total=None, loss='starting')
    tool.log.parent.mkdir(parents=True, exist_ok=True)
    with tool.log.open('w') as file:
        for line in process.stdout:
            file.write(line)
            tail.append(line)
            if not (step := _STEP.search(line)):
                continue
            loss = f'loss {float(match[1]):.3f}' if (match := _LOSS.search(line)) else ''
            bar.update(row, completed=int(step[1]), total=int(step[2]), loss=loss)
            if not has_bar and (now := time.monotonic()) - last >= _QUIET_SECONDS:
                last = now
                console.print(f'{tool.title}: {step[1]}/{step[2]}  {loss}'.rstrip())
    if status := process.wait():
        raise ToolError(f'{tool.title} failed with exit status {status}; the end of {tool.log}:\n\n{"".join(tail)}')
    if not has_bar:
        console.print(f'{tool.title}: done in {time.monotonic() - start:.0f} s')


def _columns() -> tuple[str | ProgressColumn, ...]:
    texts = TextColumn('{task.description:<32}'), TextColumn('{task.fields[loss]:<11}')
    return texts[0], BarColumn(), TaskProgressColumn(), texts[1], TimeElapsedColumn(), 'left', TimeRemainingColumn()
