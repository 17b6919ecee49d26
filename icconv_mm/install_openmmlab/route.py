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
        # bytecode is compiled when a module is first imported: few of the many are
        command = [self.python, '-m', 'pip', 'install', '--disable-pip-version-check', '--no-compile',
                   '--progress-bar', 'off', '-c', self.constraints, *arguments]  # fmt: skip
        run(command, label, self.logs / f'{label}.log', env=env, show=pip_progress)

    def install_libraries(self) -> None:
        pins, libraries = self.pin_text, self.those(LIBRARIES)
        self.step('libraries', pins + str(libraries), lambda: self.pip('libraries', *libraries, *TORCH))
        if sources := self.those(SOURCE_ONLY):
            self.step('source packages', pins,
                      lambda: self.pip('source packages', '--no-build-isolation', '--no-deps', *sources))  # fmt: skip
        rest = self.those(WITHOUT_DEPENDENCIES)
        self.step('task libraries', pins, lambda: self.pip('task libraries', '--no-deps', *rest))

    def while_mmcv_compiles(self) -> list[Callable[[], None]]:
        """What needs no mmcv; each is done in a thread of its own."""
        return [self.install_libraries]

    def fill(self) -> None:
        """Everything, in the order in which it builds."""
        pins = self.pin_text
        self.step('build tools', pins, lambda: self.pip('build tools', *BUILD_TOOLS))
        self.step('torch', pins, lambda: self.pip('torch', *TORCH, 'numpy'))
        key = f'{self.pins["torch"]} {self.pins[self.mmcv]} {self.device}'
        with ThreadPoolExecutor() as others:  # mmcv stays here: whoever interrupts this thread ends its compilers
            beside = [others.submit(work) for work in self.while_mmcv_compiles()]
            wheel = None if self.complete('mmcv', key) else mmcv_wheel(self)
            for work in beside:
                work.result()
        self.step('mmcv', key, lambda: self.pip('mmcv', '--no-deps', '--force-reinstall', wheel))


def pip_progress(line: str) -> str | None:
    match = re.match(
        r'\s*(Collecting|Downloading|Using cached|Building wheel for|Installing collected packages:) ?(.*)', line
    )
    if not match:
        return None
    text = f'{match.group(1)} {match.group(2)}'.strip()
    return text if len(text) <= 110 else text[:107] + '...'
