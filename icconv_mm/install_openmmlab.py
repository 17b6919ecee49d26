"""The OpenMMLab libraries that this package is tested with, into the environment of the Python that runs this.

What ``pip install mmcv mmdet mmpose`` does not do: mmcv is compiled for the installed torch, with a setuptools that its
build still understands; versions are those of ``constraints/``, which work together; packages whose own requirements do
not install beside the rest come without these.

Nothing is changed without ``--yes``: the plan is printed, with what would be replaced.

Examples:
  python -m icconv_mm.install_openmmlab
  python -m icconv_mm.install_openmmlab --yes
"""

# Only the standard library, and no other module of the package: scripts/setup_env.py reads this file before torch is
# there.

import argparse
import fcntl
import importlib.metadata
import os
import queue
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
FAST_CXX = PACKAGE / '_fast_cxx.py'
HEARTBEAT_SECONDS = 15
FREE_GB = {'venv': 10, 'cache': 2}

BUILD_TOOLS = ['pip', 'setuptools', 'wheel', 'ninja', 'cython', 'numpy']
TORCH = ['torch', 'torchvision']
LIBRARIES = [
    'mmengine', 'mmdet', 'mmsegmentation', 'ftfy', 'regex', 'opencv-python', 'pycocotools', 'scipy', 'matplotlib',
    'rich', 'tqdm', 'tensorboard',
    # what mmpose, mmpretrain and openmim ask for, without the packages that do not install beside the rest
    'json-tricks', 'munkres', 'einops', 'mat4py', 'modelindex', 'importlib-metadata',
    'click', 'colorama', 'requests', 'tabulate', 'pandas', 'model-index',
]  # fmt: skip
SOURCE_ONLY = ['chumpy', 'xtcocotools']  # their builds import numpy and pip: no build isolation
WITHOUT_DEPENDENCIES = ['mmpose', 'mmpretrain', 'openmim']  # openmim's own would downgrade setuptools
# Other distributions of the same imports: pip would install the one over the other. Where constraints have the fork, it
# is what is installed.
LITE = ('mmcv-lite', 'mmengine-lite')
FORKS = {
    'mmengine': 'onedl-mmengine',
    'mmcv': 'onedl-mmcv',
    'mmdet': 'onedl-mmdetection',
    'mmsegmentation': 'onedl-mmsegmentation',
    'mmpretrain': 'onedl-mmpretrain',
}
DEFAULT_TORCH = '2.11'
CXX_STANDARD = {'2.15': 'c++20'}  # torch -> what its headers need, where mmcv's build asks for an older one


class SetupError(Exception):
    """A sentence for the user: what is missing and how to fix it."""


def say(text: str) -> None:
    print(f'[setup {time.strftime("%H:%M:%S")}] {text}', flush=True)


def cache_folder() -> Path:
    if os.environ.get('ICCONV_MM_CACHE'):
        return Path(os.environ['ICCONV_MM_CACHE']).expanduser()
    return Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache') / 'icconv_mm'


def constraints_folder() -> Path:
    """Beside the package in a checkout, else where the build has put it."""
    for folder in (PACKAGE.parent / 'constraints', PACKAGE / '.mim' / 'constraints'):
        if (folder / 'common.txt').is_file():
            return folder
    raise SetupError(f'{PACKAGE} has no constraints: install icconv_mm by pip, from a release or a checkout')


def canonical(name: str) -> str:
    return re.sub(r'[-_.]+', '-', name).lower()


def read_pins(text: str) -> dict[str, str]:
    """Name -> version, of the lines that hold for this Python."""
    pins = {}
    for name, version, sign, minor in re.findall(
        r'^([\w.-]+)==([\w.+-]+)(?:; python_version (<|>=) "3\.(\d+)")?', text, re.M
    ):
        if not sign or (sys.version_info.minor < int(minor)) == (sign == '<'):
            pins[canonical(name)] = version
    return pins


class Route:
    """How the libraries get into one environment.

    Args:
        python: Interpreter of the environment, of the version that runs this.
        torch: Version that names the constraints: ``constraints/torch-VERSION.txt``.
        device: 'cpu' or 'cuda': for which mmcv is compiled.
        logs: A folder for the output of pip and compilers.
        site: Folder of the environment's packages.
    """

    also: tuple[str, ...] = ()  # what else is installed with the libraries

    def __init__(self, python: Path, torch: str, device: str, logs: Path, site: Path):
        self.python, self.torch, self.device, self.logs, self.site = python, torch, device, logs, site
        self.constraints = constraints_folder() / f'torch-{torch}.txt'
        if not self.constraints.is_file():
            raise SetupError(f'TORCH={torch}: there are constraints for {", ".join(known_torch())} only')
        self.pin_text = self.constraints.read_text()
        if '-c common.txt' in self.pin_text:
            self.pin_text = self.constraints.with_name('common.txt').read_text() + self.pin_text
        self.pins = read_pins(self.pin_text)
        self.mmcv = self.distribution('mmcv')

    def distribution(self, name: str) -> str:
        """What provides a library here: itself or its fork."""
        fork = FORKS.get(name)
        return fork if fork in self.pins else name

    def those(self, names: list[str]) -> list[str]:
        """Of these distributions, or their forks, the ones that there are pins for."""
        return [name for name in map(self.distribution, names) if canonical(name) in self.pins]

    def complete(self, name: str, key: str) -> bool:
        """Whether a step need not be done again."""
        return False

    def step(self, name: str, key: str, action: Callable[[], None]) -> None:
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


def known_torch() -> list[str]:
    """The versions of torch that there are constraints for."""
    names = (path.stem.removeprefix('torch-') for path in constraints_folder().glob('torch-*.txt'))
    return sorted(names, key=lambda name: [int(part) for part in name.split('.')])


# ----------------------------------------------------------------------------------------------------- processes


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
    lines = queue.Queue()
    begin = time.monotonic()
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

        def read():
            for line in process.stdout:
                lines.put(line)
            lines.put(None)

        threading.Thread(target=read, daemon=True).start()
        tail, said = [], begin
        try:
            while True:
                try:
                    line = lines.get(timeout=1)
                except queue.Empty:
                    line = ''
                if line is None:
                    break
                if line:
                    sink.write(line)
                    tail = [*tail[-30:], line.rstrip()]
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


def pip_progress(line: str) -> str | None:
    match = re.match(
        r'\s*(Collecting|Downloading|Using cached|Building wheel for|Installing collected packages:) ?(.*)', line
    )
    if not match:
        return None
    text = f'{match.group(1)} {match.group(2)}'.strip()
    return text if len(text) <= 110 else text[:107] + '...'


def ninja_progress() -> Callable[[str], str | None]:
    """Every tenth part of a ninja build, and what _fast_cxx.py has to say."""
    last = [-1]

    def show(line: str) -> str | None:
        if line.startswith('fast_cxx: '):
            return line.strip()
        match = re.match(r'\[(\d+)/(\d+)\]', line)
        if not match:
            return None
        done, total = int(match.group(1)), int(match.group(2))
        if done * 10 // total == last[0]:
            return None
        last[0] = done * 10 // total
        return f'compiling mmcv: {done} of {total} files'

    return show


# ------------------------------------------------------------------------------------------------------ compiling mmcv


def jobs() -> str:
    return os.environ.get('MAX_JOBS', str(os.cpu_count() or 1))


def check_disk(folder: Path, gigabytes: int, what: str) -> None:
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free / 1e9
    if free < gigabytes:
        raise SetupError(
            f'{what} needs about {gigabytes} GB in {folder}, {free:.1f} GB are free; make room and start again'
        )


def check_compiler() -> None:
    compiler = os.environ.get('CXX', 'c++')
    if shutil.which(compiler) is None:
        raise SetupError(
            f'no C++ compiler found ({compiler}), and mmcv must be compiled once; '
            'install one (Debian, Ubuntu: apt-get install g++) and start again'
        )
    if not Path(sysconfig.get_path('include'), 'Python.h').is_file():
        raise SetupError(
            f'the headers of this Python ({sys.executable}) are missing, and mmcv must be compiled once; '
            'install them (Debian, Ubuntu: apt-get install python3-dev) and start again'
        )


def fast_compiler(folder: Path, headers: list[str], standard: str | None = None) -> dict:
    """Variables under which a build calls _fast_cxx.py as its C++ compiler, with `headers` precompiled in `folder`.

    `standard`, such as 'c++20', takes the place of that which the build asks for.

    The name is found on the PATH, because builds split what CXX says at spaces. nvcc does not ask CXX: it goes its way.
    """
    folder.mkdir(parents=True, exist_ok=True)
    compiler = os.environ.get('CXX', 'c++')
    launcher = folder / f'{Path(compiler).name}-fast'  # torch looks for clang at the beginning
    launcher.write_text(f'#!/bin/sh\nexec {shlex.join([sys.executable, str(FAST_CXX)])} "$@"\n')
    launcher.chmod(0o755)
    return {
        'CXX': launcher.name,
        'PATH': f'{folder}{os.pathsep}{os.environ["PATH"]}',
        'ICCONV_MM_CXX': compiler,
        'ICCONV_MM_HEADERS': str(folder),
        'ICCONV_MM_HEADER': ''.join(f'#include <{name}>\n' for name in headers),
        'ICCONV_MM_CXX_STANDARD': standard or '',
    }


def cuda_environment(env: Route) -> dict:
    """Variables under which mmcv's CUDA operators compile against torch's own CUDA packages."""
    home = os.environ.get('CUDA_HOME', '/usr/local/cuda')
    if not Path(home, 'bin', 'nvcc').is_file():
        raise SetupError(
            f'mmcv for cuda needs the CUDA compiler, and {home}/bin/nvcc does not exist; '
            'install the CUDA toolkit of the version torch was built with, or set CUDA_HOME'
        )
    # the toolkit folder may lack cusparse.h and friends; torch's pip packages carry them
    nvidia = env.site / 'nvidia'
    headers = [str(p) for p in sorted([*nvidia.glob('cu*/include'), *nvidia.glob('*/include')])]
    return {
        'FORCE_CUDA': '1',
        'CUDA_HOME': home,
        'CPATH': ':'.join([*headers, os.environ.get('CPATH', '')]).strip(':'),
        'NVCC_PREPEND_FLAGS': ' '.join(
            [*(f'-I{p}' for p in headers), os.environ.get('NVCC_PREPEND_FLAGS', '')]
        ).strip(),
        'TORCH_CUDA_ARCH_LIST': os.environ.get('TORCH_CUDA_ARCH_LIST') or card_architectures(),
    }


def card_architectures() -> str:
    try:
        query = ['nvidia-smi', '--query-gpu=compute_cap', '--format=csv,noheader']
        found = subprocess.run(query, capture_output=True, text=True, check=True).stdout.split()
    except (OSError, subprocess.CalledProcessError):
        found = []
    return ';'.join(sorted(set(found))) or '8.0;9.0'


def mmcv_wheel(env: Route) -> Path:
    """The mmcv wheel for this environment from the cache, built on the first call."""
    version = env.pins[env.mmcv]
    python = f'py{sys.version_info.major}{sys.version_info.minor}'
    key = f'{env.mmcv}-{version}-{python}-torch{env.pins["torch"]}-{env.device}'
    target = cache_folder() / 'wheels' / key
    target.mkdir(parents=True, exist_ok=True)
    with open(target.parent / f'{key}.lock', 'w') as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say('another set-up is building the same mmcv wheel; waiting for it')
            fcntl.flock(lock, fcntl.LOCK_EX)
        found = list(target.glob('*.whl'))
        if found:
            say(f'mmcv wheel from the cache: {found[0]}')
            return found[0]
        check_compiler()
        check_disk(target, FREE_GB['cache'], 'the build of mmcv')
        return build_mmcv(env, version, cache_folder() / 'build' / key, target)


def build_mmcv(env: Route, version: str, work: Path, target: Path) -> Path:
    """Build in `work`, where the next call continues an interrupted build, and keep the wheel in `target`."""
    if not (work / 'unpacked').is_file():
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        download = [env.python, '-m', 'pip', 'download', '--disable-pip-version-check', '--no-deps']
        download += ['--no-binary', ':all:', '--no-build-isolation', '-d', work, f'{env.mmcv}=={version}']
        run(download, 'fetching mmcv', work / 'download.log')
        with tarfile.open(next(work.glob('*.tar.gz'))) as archive:
            archive.extractall(work, **({'filter': 'data'} if hasattr(tarfile, 'data_filter') else {}))
        (work / 'unpacked').touch()
    source = next(path.parent for path in work.glob('*/setup.py'))
    minutes = '10 to 25' if env.device == 'cuda' else '2 to 4'
    say(f'compiling mmcv {version} for {env.device} with {jobs()} jobs: about {minutes} minutes on two cores, once')
    variables = {'MMCV_WITH_OPS': '1', 'FORCE_CUDA': '0', 'MAX_JOBS': jobs()}
    variables |= fast_compiler(work / 'compiler', ['torch/types.h'], CXX_STANDARD.get(env.torch))
    if env.device == 'cuda':
        variables |= cuda_environment(env)
    run([env.python, 'setup.py', 'bdist_wheel', '-d', work / 'dist'], 'compiling mmcv', work / 'build.log', cwd=source,
        env=variables, show=ninja_progress())  # fmt: skip
    built = next((work / 'dist').glob('*.whl'))
    partial = target / (built.name + '.part')
    shutil.copy(built, partial)
    partial.rename(target / built.name)
    shutil.rmtree(work, ignore_errors=True)
    return target / built.name


# --------------------------------------------------------------------------------------- into one's own environment


class OwnEnvironment(Route):
    """The environment that runs this, of somebody who has put other things into it."""

    def __init__(self, torch: str | None, device: str, installed: dict[str, str]):
        self.installed = installed
        logs = cache_folder() / 'logs'
        super().__init__(Path(sys.executable), torch or self.torch_here(), device, logs, sysconfig_site())

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
        names = (*BUILD_TOOLS, *TORCH, 'mmcv', *LIBRARIES, *SOURCE_ONLY, *WITHOUT_DEPENDENCIES)
        asked = [canonical(name) for name in self.those(names)]
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

    def step(self, name: str, key: str, action: Callable[[], None]) -> None:
        if not self.complete(name, key):
            super().step(name, key, action)

    def fill(self) -> None:
        if lite := [name for name in LITE if name in self.installed]:
            run([self.python, '-m', 'pip', 'uninstall', '-y', *lite], 'removing', self.logs / 'removing.log')
        super().fill()


def sysconfig_site() -> Path:
    return Path(sysconfig.get_path('purelib'))


def installed_here() -> dict[str, str]:
    """Canonical name -> version of every distribution of this environment."""
    found = list(importlib.metadata.distributions())
    return {canonical(each.metadata['Name']): each.version for each in reversed(found)}  # the first is what is imported


def device_here() -> str:
    """'cuda' where the installed torch sees a card."""
    try:
        import torch
    except ImportError:
        return 'cpu'
    return 'cuda' if torch.cuda.is_available() else 'cpu'


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(
        prog='python -m icconv_mm.install_openmmlab', description=__doc__, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument('--yes', action='store_true', help='do it; without this only the plan is printed')
    parser.add_argument(
        '--torch', metavar='VERSION', help='2.1, 2.11 or 2.15: with this torch; default: the installed one'
    )
    parser.add_argument('--device', choices=['cpu', 'cuda'], help='default: cuda where torch sees a card')
    args = parser.parse_args(argv)
    try:
        route = OwnEnvironment(args.torch, args.device or device_here(), installed_here())
        print('\n'.join(route.plan()))
        if not args.yes:
            print('Nothing was changed; --yes does this.')
            return 0
        route.fill()
    except SetupError as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print('interrupted; the next call does what is left', file=sys.stderr)
        return 130
    say('done; `python -c "import icconv_mm.registry, mmdet, mmseg, mmpose"` tries it')
    return 0


if __name__ == '__main__':
    sys.exit(main())
