"""Set up the development environment: virtual environment, pinned libraries, mmcv wheel, this package.

Run by ``make``; needs only the standard library. What is installed stands in icconv_mm/app/install_openmmlab.py. Every
step leaves a stamp when it is complete, so that an interrupted set-up continues where it stopped and a finished one
costs nothing. The mmcv wheel is built once for each combination of Python, torch, mmcv and device and kept in the cache
folder (ICCONV_MM_CACHE, else $XDG_CACHE_HOME/icconv_mm, else ~/.cache/icconv_mm).
"""

import argparse
import fcntl
import hashlib
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import mmcv_wheel
import processes
from processes import ROOT, SetupError, installer, say

FOR_EXPORT = ('onnx', 'onnxruntime', 'onnxscript')  # with which the demo ends
FOR_TESTS = (
    'openvino; python_version >= "3.11"', 'nncf; python_version >= "3.11"',
    'argcomplete', 'coverage', 'pytest', 'pytest-timeout', 'pytest-xdist', 'hypothesis', 'ruff',
    'import-linter', 'clang-format', 'sphinx', 'myst-parser', 'furo', 'sphinx-copybutton',
)  # fmt: skip
# timm would bring what fetches weights, torchjd another torch, trackers numpy 2, supervision a reader of videos
FOR_TESTS_WITHOUT_DEPENDENCIES = (
    'defusedxml', 'ptflops', 'pydeprecate', 'qpsolvers', 'quadprog', 'safetensors', 'supervision', 'timm',
    'torchao; python_version >= "3.11"', 'torchinfo', 'torchjd', 'torch-pruning', 'trackers',
)  # fmt: skip

BROWSER_RUNTIME = ROOT / 'icconv_mm_runtime' / 'extra' / 'page' / 'package.json'  # has the version


class Environment:
    """One virtual environment and the steps that fill it."""

    def __init__(self, venv: Path, torch: str, device: str, for_tests: bool = False):
        self.venv, self.stamps, self.python = venv, venv / '.icconv_mm', venv / 'bin' / 'python'
        self.versions, self.device, self.for_tests = installer.Versions(torch), device, for_tests
        self.site = venv / 'lib' / f'python{sys.version_info.major}.{sys.version_info.minor}' / 'site-packages'

    def complete(self, name: str, key: str) -> bool:
        stamp = self.stamps / name
        return stamp.is_file() and stamp.read_text() == stamp_text(key)

    def step(self, name: str, key: str, action: Callable[[], None]) -> None:
        """Do `action` unless it was completed before with the same `key`."""
        if self.complete(name, key):
            return
        begin = time.monotonic()
        say(f'{name} ...')
        action()
        say(f'{name}: done in {time.monotonic() - begin:.0f} s')
        self.stamps.mkdir(parents=True, exist_ok=True)
        (self.stamps / name).write_text(stamp_text(key))

    def pip(self, label: str, *arguments: str | Path, env: Mapping[str, str] | None = None) -> None:
        # bytecode is compiled when a module is first imported: few of the many are
        command = [self.python, '-m', 'pip', 'install', '--disable-pip-version-check', '--no-compile',
                   '--progress-bar', 'off', '-c', self.versions.constraints, *arguments]  # fmt: skip
        processes.run(command, label, self.stamps / f'{label}.log', env=env, show=pip_progress)

    def install(self, name: str, *arguments: str) -> None:
        """A step that calls pip alone."""
        self.step(name, f'{self.versions.text}{arguments}', lambda: self.pip(name, *arguments))

    def create(self) -> None:
        processes.check_disk(self.venv.parent, processes.FREE_GB['venv'], 'the virtual environment')
        try:
            import ensurepip  # noqa: F401
            import venv
        except ImportError as error:
            raise SetupError(
                f'this Python ({sys.executable}) cannot make virtual environments; '
                'install its venv module (Debian, Ubuntu: apt-get install python3-venv) and start again'
            ) from error
        shutil.rmtree(self.venv, ignore_errors=True)
        venv.create(self.venv, with_pip=True, symlinks=True)

    def install_package(self) -> None:
        env = {'ICCONV_MM_EXT': extension_mode(self.device), 'MAX_JOBS': mmcv_wheel.jobs()}
        self.pip('icconv_mm', '-v', '--no-build-isolation', '--no-deps', '-e', ROOT, env=env)
        lines = (line.strip() for line in (self.stamps / 'icconv_mm.log').read_text().splitlines())
        for notice in dict.fromkeys(line for line in lines if line.startswith('icconv_mm: ')):
            say(notice)

    def fetch_browser_runtime(self) -> None:
        command = [self.python, '-c', 'from icconv_mm_runtime.extra import web; web.package()']
        processes.run(command, 'onnxruntime-web', self.stamps / 'onnxruntime-web.log', cwd=ROOT)

    def own_package(self) -> None:
        compilers = [shutil.which(os.environ.get('CXX', 'c++')), shutil.which('nvcc'), os.environ.get('CUDA_HOME')]
        key = str([source_key(), self.versions.pins['torch'], extension_mode(self.device), ROOT, compilers])
        self.step('icconv_mm', key, self.install_package)

    def fill(self) -> None:
        """Everything, in the order in which it builds; what needs no mmcv is installed while that compiles."""
        self.step('venv', '', self.create)
        steps = self.versions.steps()
        for name in ('build tools', 'torch'):
            self.install(name, *steps.pop(name))

        def install_libraries() -> None:
            for name, arguments in steps.items():
                self.install(name, *arguments)

        key = f'{self.versions.pins["torch"]} {self.versions.pins[self.versions.mmcv]} {self.device}'
        with ThreadPoolExecutor() as others:  # mmcv stays here: whoever interrupts this thread ends its compilers
            beside = [others.submit(work) for work in (install_libraries, self.own_package)]
            wheel = None if self.complete('mmcv', key) else mmcv_wheel.mmcv_wheel(self)
            for work in beside:
                work.result()
        self.step('mmcv', key, lambda: self.pip('mmcv', '--no-deps', '--force-reinstall', wheel))
        self.install('for export', *FOR_EXPORT)
        try:  # only the page in the browser needs it
            self.step('onnxruntime-web', BROWSER_RUNTIME.read_text(), self.fetch_browser_runtime)
        except SetupError as error:
            say(f'without onnxruntime-web: {error}')
        if self.for_tests:
            self.install('for tests', *FOR_TESTS)
            self.install('for tests, alone', '--no-deps', *FOR_TESTS_WITHOUT_DEPENDENCIES)


def pip_progress(line: str) -> str | None:
    match = re.match(
        r'\s*(Collecting|Downloading|Using cached|Building wheel for|Installing collected packages:) ?(.*)', line
    )
    if not match:
        return None
    text = f'{match.group(1)} {match.group(2)}'.strip()
    return text if len(text) <= 110 else text[:107] + '...'


def stamp_text(key: str) -> str:
    return hashlib.sha256(f'{sys.version}\n{key}'.encode()).hexdigest()


def source_key() -> str:
    """Changes with whatever an editable install depends on; Python files are read in place."""
    files = [ROOT / 'setup.py', ROOT / 'pyproject.toml', *sorted(p for p in (ROOT / 'csrc').rglob('*') if p.is_file())]
    return hashlib.sha256(b''.join(p.read_bytes() for p in files)).hexdigest()


def extension_mode(device: str) -> str:
    """What setup.py is asked to compile: with DEVICE=cuda, CUDA operators or an error, else none of them."""
    return os.environ.get('ICCONV_MM_EXT', device)


@contextmanager
def only_one() -> Iterator[None]:
    """Set-ups of one checkout run one after the other: they share its build folders."""
    with open(ROOT / '.setup.lock', 'w') as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say('another set-up of this checkout is at work; waiting for it')
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--venv', type=Path, required=True)
    parser.add_argument('--torch', default='2.11', help='which constraints file: constraints/torch-VERSION.txt')
    parser.add_argument('--device', choices=['cpu', 'cuda'], default='cpu')
    parser.add_argument('--for-tests', action='store_true', help='with what tests, lint and the documentation need')
    args = parser.parse_args()
    try:
        with only_one():
            Environment((ROOT / args.venv).absolute(), args.torch, args.device, args.for_tests).fill()
    except SetupError as error:
        say(f'error: {error}')
        return 1
    except OSError as error:
        say(f'error: {error.strerror}: {error.filename}; mend it and run make again')
        return 1
    except KeyboardInterrupt:
        say('interrupted; the next make continues here')
        return 130
    return 0


if __name__ == '__main__':
    sys.exit(main())
