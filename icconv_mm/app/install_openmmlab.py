"""Installs the OpenMMLab libraries that this package is tested with into the environment of this Python.

The versions are those of ``constraints/``, which work together. mmcv is compiled for the installed torch, with a
setuptools that its build supports; packages whose requirements conflict with the others are installed without them.

Without ``--yes``, the plan and the packages that it would replace are printed, and nothing changes.

Examples:
  python -m icconv_mm.install_openmmlab
  python -m icconv_mm.install_openmmlab --yes
"""

# Imports the standard library only and no other module of the package: it runs before torch is installed.
import argparse
import importlib.metadata
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
BUILD_TOOLS = ['pip', 'setuptools', 'wheel', 'ninja', 'cython', 'numpy']
TORCH = ['torch', 'torchvision']
TASK_LIBRARIES = [
    'mmengine', 'mmdet', 'mmsegmentation', 'ftfy', 'regex', 'opencv-python', 'pycocotools', 'faster-coco-eval', 'scipy',
    'matplotlib', 'rich', 'tqdm', 'tensorboard',
    # the requirements of mmpose, mmpretrain and openmim, without the packages that conflict with the others
    'json-tricks', 'munkres', 'einops', 'mat4py', 'modelindex', 'importlib-metadata',
    'click', 'colorama', 'requests', 'tabulate', 'pandas', 'model-index',
]  # fmt: skip
# The first two import numpy and pip to build: no isolation. openmim's requirements would downgrade setuptools, and
# what mim uses of them and of onedl-mim's is above.
WITHOUT_DEPENDENCIES = ['chumpy', 'xtcocotools', 'mmpose', 'mmpretrain', 'openmim']
# Other distributions of the same import names: pip would install one over the other. If the constraints name the fork,
# the fork is installed.
LITE = ('mmcv-lite', 'mmengine-lite')
FORKS = {
    'mmengine': 'onedl-mmengine',
    'mmcv': 'onedl-mmcv',
    'mmdet': 'onedl-mmdetection',
    'mmsegmentation': 'onedl-mmsegmentation',
    'mmpretrain': 'onedl-mmpretrain',
    'openmim': 'onedl-mim',
}
DEFAULT_TORCH = '2.11'
CXX_STANDARD = {'2.15': 'c++20'}  # torch -> the standard that its headers need, if mmcv's build sets an older one


class SetupError(Exception):
    """Raised with a message for the user: what is missing and how to fix it."""


def constraints_folder() -> Path:
    """Returns the folder of the constraints: beside the package in a checkout, else where the build puts it."""
    for folder in (PACKAGE.parent / 'constraints', PACKAGE / '.mim' / 'constraints'):
        if (folder / 'common.txt').is_file():
            return folder
    raise SetupError(f'{PACKAGE} has no constraints: install icconv_mm by pip, from a release or a checkout')


def known_torch() -> list[str]:
    """Returns the versions of torch that have constraints."""
    names = (path.stem.removeprefix('torch-') for path in constraints_folder().glob('torch-*.txt'))
    return sorted(names, key=lambda name: [int(part) for part in name.split('.')])


def canonical(name: str) -> str:
    return re.sub(r'[-_.]+', '-', name).lower()


def read_pins(text: str) -> dict[str, str]:
    """Returns name -> version of the lines whose markers hold for this Python."""
    pins = {}
    for name, version, sign, minor in re.findall(
        r'^([\w.-]+)==([\w.+-]+)(?:; python_version (<|>=) "3\.(\d+)")?', text, re.M
    ):
        if not sign or (sys.version_info.minor < int(minor)) == (sign == '<'):
            pins[canonical(name)] = version
    return pins


class Versions:
    """The pinned packages for a torch that ``constraints/torch-VERSION.txt`` names.

    Raises:
        SetupError: The constraints do not exist.
    """

    def __init__(self, torch: str):
        self.torch, self.constraints = torch, constraints_folder() / f'torch-{torch}.txt'
        if not self.constraints.is_file():
            raise SetupError(f'TORCH={torch}: there are constraints for {", ".join(known_torch())} only')
        self.text = self.constraints.read_text()
        if '-c common.txt' in self.text:
            self.text = self.constraints.with_name('common.txt').read_text() + self.text
        self.pins = read_pins(self.text)
        self.mmcv = self.distribution('mmcv')

    def distribution(self, name: str) -> str:
        """Returns the distribution that provides a library here: the original or its fork."""
        fork = FORKS.get(name)
        return fork if fork in self.pins else name

    def those(self, names: Sequence[str]) -> list[str]:
        """Returns the distributions among ``names``, or their forks, that have a pinned version."""
        return [name for name in map(self.distribution, names) if canonical(name) in self.pins]

    def steps(self) -> dict[str, list[str]]:
        """Returns the arguments of ``pip install`` by step, in build order; mmcv comes after them."""
        return {
            'build tools': BUILD_TOOLS,
            # mmcv's setup.py imports OpenCV if it is there, even an incomplete one
            'torch': [*TORCH, 'numpy', *self.those(['opencv-python', 'opencv-python-headless'])],
            'libraries': [*self.those(TASK_LIBRARIES), *TORCH],
            'task libraries': ['--no-deps', '--no-build-isolation', *self.those(WITHOUT_DEPENDENCIES)],
        }


def versions_for(installed: Mapping[str, str]) -> Versions:
    """Returns the versions for the installed torch.

    Raises:
        SetupError: mmcv is not known to compile for this torch.
    """
    torch_version = installed.get('torch', 'none')
    here = '.'.join(torch_version.split('.')[:2])
    if here not in known_torch():
        raise SetupError(
            f'torch {torch_version} is installed, and mmcv is known to compile for torch {", ".join(known_torch())}; '
            f'--torch {DEFAULT_TORCH} installs that instead'
        )
    return Versions(here)


def plan_installation(versions: Versions, installed: Mapping[str, str], device: str) -> list[str]:
    """Returns the steps of :func:`install`, one line each.

    Raises:
        SetupError: Installed libraries have the import names of the forks that this would install, or the other way
            round.
    """
    pins, wanted = versions.pins, {versions.distribution(name) for name in FORKS}
    if others := sorted(({*FORKS, *FORKS.values()} - wanted) & installed.keys()):
        raise SetupError(
            f'{", ".join(others)}: installed, under the import names of {", ".join(sorted(wanted))}; take an '
            'environment without them, or keep them, as icconv_mm works with both'
        )
    everything = (*BUILD_TOOLS, *TORCH, 'mmcv', *TASK_LIBRARIES, *WITHOUT_DEPENDENCIES)
    asked = [canonical(name) for name in versions.those(everything)]
    new = ', '.join(f'{name} {pins[name]}' for name in sorted(asked) if name not in installed)
    other = [name for name, pin in pins.items() if installed.get(name, pin).split('+')[0] != pin]
    lines = [f'python {sys.version.split()[0]} in {sys.prefix}, torch {pins["torch"]}, mmcv for {device}']
    lines += [f'new, with what they require: {new}' if new else 'nothing is missing']
    lines += [f'replaced: {name} {installed[name]} by {pins[name]}' for name in other if name in asked]
    if rest := [f'{name} {installed[name]} by {pins[name]}' for name in other if name not in asked]:
        lines += [f'replaced where a library requires them: {", ".join(rest)}']
    lines += [f'removed: {name} {installed[name]}' for name in LITE if name in installed]
    if not has_mmcv(versions, installed):
        lines += ['mmcv is compiled, which needs a C++ compiler (for cuda also nvcc) and some 10 minutes on two cores']
    return lines


def has_mmcv(versions: Versions, installed: Mapping[str, str]) -> bool:
    """Returns whether the right mmcv is installed; only its import shows which torch it was compiled for."""
    installed_mmcv = installed.get(versions.mmcv), installed.get('torch', '').split('+')[0]
    if installed_mmcv != (versions.pins[versions.mmcv], versions.pins['torch']):
        return False
    return subprocess.run([sys.executable, '-c', 'import mmcv.ops'], capture_output=True).returncode == 0


def install(versions: Versions, installed: Mapping[str, str], device: str) -> None:
    """Calls pip step by step; steps that are already installed take seconds.

    Raises:
        SetupError: pip failed.
    """
    if lite := [name for name in LITE if name in installed]:
        pip('uninstall', '-y', *lite)
    options = 'install', '-c', str(versions.constraints)
    for arguments in versions.steps().values():
        pip(*options, *arguments)
    if not has_mmcv(versions, installed):
        # pip's cache does not distinguish wheels for different versions of torch
        options += '--no-cache-dir', '--force-reinstall', '--no-deps', '--no-build-isolation'
        with tempfile.TemporaryDirectory() as folder:
            pip(*options, '--no-binary', versions.mmcv, versions.mmcv, env=compiling(versions, device, Path(folder)))


def compiling(versions: Versions, device: str, folder: Path) -> dict[str, str]:
    """Returns the environment variables that compile mmcv; ``folder`` may get a compiler script."""
    variables = {'MMCV_WITH_OPS': '1', 'FORCE_CUDA': str(int(device == 'cuda'))}
    if standard := CXX_STANDARD.get(versions.torch):  # the last -std option counts
        compiler = folder / 'c++'
        compiler.write_text(f'#!/bin/sh\nexec {os.environ.get("CXX", "c++")} "$@" -std={standard}\n')
        compiler.chmod(0o755)
        variables['CXX'] = str(compiler)
    return variables


def pip(*arguments: str, env: Mapping[str, str] | None = None) -> None:
    command = [sys.executable, '-m', 'pip', '--disable-pip-version-check', *arguments]
    if subprocess.run(command, env={**os.environ, **(env or {})}).returncode:
        raise SetupError(f'pip {arguments[0]} failed; fix the cause above and start again')


def installed_here() -> dict[str, str]:
    """Returns canonical name -> version of every distribution in this environment."""
    distributions = list(importlib.metadata.distributions())
    return {
        canonical(distribution.metadata['Name']): distribution.version for distribution in reversed(distributions)
    }  # the first is imported


def device_here() -> str:
    """Returns 'cuda' if the installed torch finds a GPU."""
    try:
        import torch
    except ImportError:
        return 'cpu'
    return 'cuda' if torch.cuda.is_available() else 'cpu'


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog='python -m icconv_mm.install_openmmlab', description=__doc__, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument('--yes', action='store_true', help='do it; without this only the plan is printed')
    parser.add_argument('--torch', metavar='VERSION', help='2.1, 2.11 or 2.15; default: the installed one')
    parser.add_argument('--device', choices=['cpu', 'cuda'], help='default: cuda where torch sees a GPU')
    args = parser.parse_args(argv)
    device, installed = args.device or device_here(), installed_here()
    try:
        versions = Versions(args.torch) if args.torch else versions_for(installed)
        print('\n'.join(plan_installation(versions, installed, device)), flush=True)
        if not args.yes:
            print('Nothing was changed; --yes does this.')
            return 0
        install(versions, installed, device)
    except SetupError as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print('interrupted; the next call does what is left', file=sys.stderr)
        return 130
    pose = ', mmpose' if versions.those(['mmpose']) else ''  # it has no fork, and none for the newest torch
    print(f'done; `python -c "import icconv_mm.registry, mmdet, mmseg{pose}"` tries it')
    return 0
