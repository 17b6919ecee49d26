"""What the set-up says, runs and refuses."""

import importlib.util
import os
import queue
import shutil
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[3]
HEARTBEAT_SECONDS = 15
FREE_GB = {'venv': 10, 'cache': 2}


def _installer() -> ModuleType:
    """The package's installer, without the package around it, which refuses to be imported before torch is there."""
    spec = importlib.util.spec_from_file_location('install_openmmlab', ROOT / 'icconv_mm/app/install_openmmlab.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


installer = _installer()
SetupError = installer.SetupError


def say(text: str) -> None:
    print(f'[setup {time.strftime("%H:%M:%S")}] {text}', flush=True)


def check_disk(folder: Path, gigabytes: int, what: str) -> None:
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free / 1e9
    if free < gigabytes:
        raise SetupError(
            f'{what} needs about {gigabytes} GB in {folder}, {free:.1f} GB are free; make room and start again'
        )


def run(
    command: Sequence[str | Path],
    label: str,
    log: Path,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    show: Callable[[str], str | None] | None = None,
) -> None:
    """Run a command; print the lines that `show` picks from its output, and a sign of life when there are none.

    Args:
        log: File that receives the whole output and is named when the command fails.
        env: Variables that are added to the environment.
        show: Function that gives what to print of a line of output, or None.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    begin = said = time.monotonic()
    tail: deque[str] = deque(maxlen=31)
    with open(log, 'w') as sink:
        process = subprocess.Popen(
            [str(part) for part in command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors='replace',
            env={**os.environ, **(env or {})},
            cwd=cwd,
        )
        try:
            for line in _lines(process):
                if line:
                    sink.write(line)
                    tail.append(line.rstrip())
                text = show(line) if line and show else None
                if text is None and time.monotonic() - said > HEARTBEAT_SECONDS:
                    text = f'{label} ... {time.monotonic() - begin:.0f} s'
                if text is not None:
                    say(text)
                    said = time.monotonic()
        except BaseException:
            process.terminate()
            process.wait()
            raise
    if process.wait() != 0:
        if any('No space left on device' in line for line in tail):
            raise SetupError(f'{label}: the disk is full; free some space (about {FREE_GB["venv"]} GB) and start again')
        print('\n'.join(tail), file=sys.stderr)
        raise SetupError(f'{label} failed (the whole output is in {log}); fix the cause above and start again')


def _lines(process: subprocess.Popen) -> Iterator[str]:
    """The lines that a process prints, as they come; '' for each second without one."""
    lines: queue.Queue[str | None] = queue.Queue()

    def read() -> None:
        for line in process.stdout:
            lines.put(line)
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    while True:
        try:
            line = lines.get(timeout=1)
        except queue.Empty:
            line = ''
        if line is None:
            return
        yield line
