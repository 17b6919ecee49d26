"""Child processes of the tools: how they are started and ended, and what is reported of one that failed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

GRACE_SECONDS = 5  # between asking a process to end and killing it


def python(script: Path, *arguments: object) -> list[str]:
    """The command that runs a script with this interpreter, unbuffered."""
    return [sys.executable, '-u', str(script), *map(str, arguments)]


class Ended(NamedTuple):
    """How a process ended; its text goes behind the name of the process."""

    status: int | None  # below zero of a signal; None where the process took too long
    last: str  # the last line that it said
    seconds: float

    def __str__(self) -> str:
        how = 'took too long' if self.status is None else f'ended with status {self.status}'
        if (self.status or 0) < 0:
            how = f'was ended by {signal.Signals(-self.status).name}'
        return f'{how}: {self.last}'.removesuffix(': ')


class Children:
    """Processes that end with the block, however it ends but by SIGKILL. SIGTERM is Ctrl-C in it, unless it is caught.

    The block is one of the main thread; other threads may start processes in it.
    """

    def __enter__(self) -> 'Children':
        self._started: list[subprocess.Popen] = []
        self._handler = signal.getsignal(signal.SIGTERM)
        if self._handler is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, signal.default_int_handler)
        return self

    def __exit__(self, *_: object) -> None:
        for child in self._started:
            child.terminate()
        for child in self._started:
            try:
                child.wait(GRACE_SECONDS)
            except (subprocess.TimeoutExpired, KeyboardInterrupt):
                child.kill()
                child.wait()
        signal.signal(signal.SIGTERM, self._handler)

    def start(self, command: Sequence[str], env: Mapping[str, str] | None = None, **settings) -> subprocess.Popen:
        """Start a process with ``env`` added to the environment; ``settings`` are those of ``Popen``."""
        child = subprocess.Popen(command, env={**os.environ, **(env or {})}, **settings)
        self._started.append(child)
        return child

    def run(self, command: Sequence[str], log: Path, seconds: float | None = None, **settings) -> Ended:
        """Run a command to its end.

        Args:
            command: The program and its arguments.
            log: Takes its output.
            seconds: Time after which it is killed.
            settings: Settings of :meth:`start`; with ``stdout=None`` the log takes errors alone.
        """
        begin = time.monotonic()
        with log.open('w') as file:
            child = self.start(command, **{'stdout': file, 'stderr': file, **settings})
            try:
                status = child.wait(seconds)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
                status = None
        last = (log.read_text(errors='replace').strip().splitlines() or [''])[-1]
        return Ended(status, last, time.monotonic() - begin)
