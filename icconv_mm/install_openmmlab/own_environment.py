"""The environment that runs this, of somebody who has put other things into it."""

import importlib.metadata
import subprocess
import sys
import sysconfig
from pathlib import Path

from .constraints import ALL, DEFAULT_TORCH, FORKS, LITE, canonical, known_torch
from .mmcv_wheel import cache_folder
from .processes import SetupError, run
from .route import Route


class OwnEnvironment(Route):
    """The environment that runs this, of somebody who has put other things into it."""

    def __init__(self, torch: str | None, device: str, installed: dict[str, str]):
        self.installed = installed
        logs, site = cache_folder() / 'logs', Path(sysconfig.get_path('purelib'))
        super().__init__(Path(sys.executable), torch or self.torch_here(), device, logs, site)

    def torch_here(self) -> str:
        """Which constraints fit the installed torch."""
        found = self.installed.get('torch', 'none')
        here = '.'.join(found.split('.')[:2])
        if here not in known_torch():
            raise SetupError(
                f'torch {found} is installed, and mmcv is known to compile for torch {", ".join(known_torch())}; '
                f'--torch {DEFAULT_TORCH} installs that instead'
            )
        return here

    def plan(self) -> list[str]:
        """What :meth:`fill` would do, a line each.

        Raises:
            SetupError: If libraries are installed, under whose import names this would install their forks, or
                the other way round.
        """
        wanted = {self.distribution(name) for name in FORKS}
        if others := sorted(({*FORKS, *FORKS.values()} - wanted) & self.installed.keys()):
            raise SetupError(
                f'{", ".join(others)}: installed, under the import names of {", ".join(sorted(wanted))}; take an '
                'environment without them, or keep them, as icconv_mm works with both'
            )
        asked = [canonical(name) for name in self.those(ALL)]
        new = [name for name in asked if name not in self.installed]
        other = [name for name, pin in self.pins.items() if self.installed.get(name, pin).split('+')[0] != pin]
        lines = [f'python {sys.version.split()[0]} in {sys.prefix}, torch {self.pins["torch"]}, mmcv for {self.device}']
        listed = ', '.join(f'{name} {self.pins[name]}' for name in sorted(new))
        lines += [f'new, with what they require: {listed}' if new else 'nothing is missing']
        lines += [f'replaced: {name} {self.installed[name]} by {self.pins[name]}' for name in other if name in asked]
        if rest := [name for name in other if name not in asked]:
            changes = ', '.join(f'{name} {self.installed[name]} by {self.pins[name]}' for name in rest)
            lines += [f'replaced where a library requires them: {changes}']
        lines += [f'removed: {name} {self.installed[name]}' for name in LITE if name in self.installed]
        if not self.has_mmcv():
            lines += ['mmcv is compiled: a C++ compiler and 2 to 4 minutes on two cores, 10 to 25 for cuda']
        return lines

    def has_mmcv(self) -> bool:
        """Whether the mmcv of the pins is here; which torch it was compiled for only a trial shows."""
        torch = self.installed.get('torch', '').split('+')[0]
        if (self.installed.get(self.mmcv), torch) != (self.pins[self.mmcv], self.pins['torch']):
            return False
        return subprocess.run([self.python, '-c', 'import mmcv.ops'], capture_output=True).returncode == 0

    def complete(self, name: str, key: str) -> bool:
        return name == 'mmcv' and self.has_mmcv()

    def fill(self) -> None:
        if lite := [name for name in LITE if name in self.installed]:
            run([self.python, '-m', 'pip', 'uninstall', '-y', *lite], 'removing', self.logs / 'removing.log')
        super().fill()


def installed_here() -> dict[str, str]:
    """Canonical name -> version of every distribution of this environment."""
    found = list(importlib.metadata.distributions())
    return {canonical(each.metadata['Name']): each.version for each in reversed(found)}  # the first is what is imported


def device_here() -> str:
    """'cuda' where the installed torch sees a GPU."""
    try:
        import torch
    except ImportError:
        return 'cpu'
    return 'cuda' if torch.cuda.is_available() else 'cpu'
