"""How the libraries get into one environment: the steps, in the order in which they build."""

import re
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .constraints import BUILD_TOOLS, LIBRARIES, SOURCE_ONLY, TORCH, WITHOUT_DEPENDENCIES, Target
from .mmcv_wheel import mmcv_wheel
from .processes import run, say


class Route(Target):
    """How the libraries get into one environment.

    Args:
        logs: A folder for the output of pip and compilers; the others as :class:`Target`.
    """

    also: tuple[str, ...] = ()  # what else is installed with the libraries

    def __init__(self, python: Path, torch: str, device: str, logs: Path, site: Path):
        super().__init__(python, torch, device, site)
        self.logs = logs

    def complete(self, name: str, key: str) -> bool:
        """Whether a step need not be done again."""
        return False

    def step(self, name: str, key: str, action: Callable[[], None]) -> None:
        """Do ``action`` unless it was completed before with the same ``key``."""
        if self.complete(name, key):
            return
        begin = time.monotonic()
        say(f'{name} ...')
        action()
        say(f'{name}: done in {time.monotonic() - begin:.0f} s')

    def pip(self, label: str, *arguments: str | Path, env: Mapping[str, str] | None = None) -> None:
        command = [self.python, '-m', 'pip', 'install', '--disable-pip-version-check', '--progress-bar', 'off',
                   '-c', self.constraints, *arguments]  # fmt: skip
        run(command, label, self.logs / f'{label}.log', env=env, show=pip_progress)

    def install_libraries(self) -> None:
        """The libraries arrive while mmcv compiles; then its wheel is installed."""
        key = f'{self.pins["torch"]} {self.pins[self.mmcv]} {self.device}'
        libraries = [*self.those(LIBRARIES), *self.also]
        with ThreadPoolExecutor(1) as other:  # mmcv stays here: whoever interrupts this thread ends its compilers
            arriving = other.submit(self.step, 'libraries', self.pin_text + str(libraries),
                                    lambda: self.pip('libraries', *libraries, *TORCH))  # fmt: skip
            wheel = None if self.complete('mmcv', key) else mmcv_wheel(self)
            arriving.result()
        self.step('mmcv', key, lambda: self.pip('mmcv', '--no-deps', '--force-reinstall', wheel))

    def fill(self) -> None:
        """Everything, in the order in which it builds."""
        pins = self.pin_text
        self.step('build tools', pins, lambda: self.pip('build tools', *BUILD_TOOLS))
        self.step('torch', pins, lambda: self.pip('torch', *TORCH, 'numpy'))
        self.install_libraries()
        if sources := self.those(SOURCE_ONLY):
            self.step('source packages', pins,
                      lambda: self.pip('source packages', '--no-build-isolation', '--no-deps', *sources))  # fmt: skip
        rest = self.those(WITHOUT_DEPENDENCIES)
        self.step('task libraries', pins, lambda: self.pip('task libraries', '--no-deps', *rest))


def pip_progress(line: str) -> str | None:
    match = re.match(
        r'\s*(Collecting|Downloading|Using cached|Building wheel for|Installing collected packages:) ?(.*)', line
    )
    if not match:
        return None
    text = f'{match.group(1)} {match.group(2)}'.strip()
    return text if len(text) <= 110 else text[:107] + '...'
