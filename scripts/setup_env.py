"""Set up the development environment: virtual environment, pinned libraries, mmcv wheel, this package.

Run by ``make``; needs only the standard library. What is installed, and how, stands in icconv_mm/install_openmmlab.
Every step leaves a stamp when it is complete, so that an interrupted set-up continues where it stopped and a finished
one costs nothing. The mmcv wheel is built once for each combination of Python, torch, mmcv and device and kept in the
cache folder (ICCONV_MM_CACHE, else $XDG_CACHE_HOME/icconv_mm, else ~/.cache/icconv_mm).
"""

import argparse
import fcntl
import hashlib
import importlib
import importlib.util
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[1]


def installer(module: str) -> ModuleType:
    """A module of the installer, without the package around it, which refuses to be imported before torch is there."""
    if 'install_openmmlab' not in sys.modules:
        folder = ROOT / 'icconv_mm' / 'install_openmmlab'
        spec = importlib.util.spec_from_file_location('install_openmmlab', folder / '__init__.py')
        sys.modules['install_openmmlab'] = importlib.util.module_from_spec(spec)
    return importlib.import_module(f'install_openmmlab.{module}')


processes, mmcv_wheel, route = map(installer, ('processes', 'mmcv_wheel', 'route'))
SetupError, say = processes.SetupError, processes.say

FOR_TESTS = (
    'onnx', 'onnxruntime', 'onnxscript', 'pytest', 'pytest-timeout', 'pytest-xdist', 'hypothesis', 'ruff',
    'import-linter', 'clang-format', 'sphinx', 'myst-parser', 'furo', 'sphinx-copybutton',
)  # fmt: skip
FOR_TESTS_WITHOUT_DEPENDENCIES = ('timm',)  # which would bring what fetches weights
PACKAGE = {False: 'icconv_mm', True: 'icconv_mm for tests'}  # the second with the kernels that only tests call


class Environment(route.Route):
    """One virtual environment and the steps that fill it."""

    def __init__(self, venv: Path, torch: str, device: str, for_tests: bool = False):
        version = f'python{sys.version_info.major}.{sys.version_info.minor}'
        self.venv, self.stamps, self.for_tests = venv, venv / '.icconv_mm', for_tests
        site = venv / 'lib' / version / 'site-packages'
        super().__init__(venv / 'bin' / 'python', torch, device, self.stamps, site)

    def complete(self, name: str, key: str) -> bool:
        stamp = self.stamps / name
        return stamp.is_file() and stamp.read_text() == stamp_text(key)

    def step(self, name: str, key: str, action: Callable[[], None]) -> None:
        """Do `action` unless it was completed before with the same `key`."""
        if self.complete(name, key):
            return
        super().step(name, key, action)
        self.stamps.mkdir(parents=True, exist_ok=True)
        (self.stamps / name).write_text(stamp_text(key))

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
        for name in PACKAGE.values():  # whichever of the two was there is replaced
            (self.stamps / name).unlink(missing_ok=True)
        self.pip('icconv_mm', '-v', '--no-build-isolation', '--no-deps', '-e', ROOT, env={
            'ICCONV_MM_EXT': extension_mode(self.device), 'ICCONV_MM_EXT_TESTS': str(int(self.for_tests)),
            'MAX_JOBS': mmcv_wheel.jobs(),
            **mmcv_wheel.fast_compiler(self.stamps / 'compiler', ['torch/library.h'])})  # fmt: skip
        lines = (line.strip() for line in (self.stamps / 'icconv_mm.log').read_text().splitlines())
        for notice in dict.fromkeys(line for line in lines if line.startswith('icconv_mm: ')):
            say(notice)

    def own_package(self) -> None:
        compilers = [shutil.which(os.environ.get('CXX', 'c++')), shutil.which('nvcc'), os.environ.get('CUDA_HOME')]
        key = str([source_key(), self.pins['torch'], extension_mode(self.device), ROOT, compilers])
        if not self.complete(PACKAGE[True], key):  # which serves both
            self.step(PACKAGE[self.for_tests], key, self.install_package)

    def while_mmcv_compiles(self) -> list[Callable[[], None]]:
        return [*super().while_mmcv_compiles(), self.own_package]

    def fill(self) -> None:
        self.step('venv', '', self.create)
        super().fill()
        if self.for_tests:
            self.step('for tests', self.pin_text + str(FOR_TESTS), lambda: self.pip('for tests', *FOR_TESTS))
            self.step('for tests, alone', self.pin_text,
                      lambda: self.pip('for tests, alone', '--no-deps', *FOR_TESTS_WITHOUT_DEPENDENCIES))  # fmt: skip


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
