"""Set up the development environment: virtual environment, pinned libraries, mmcv wheel, this package.

Run by ``make``; needs only the standard library. Every step leaves a stamp when it is complete, so that an interrupted
set-up continues where it stopped and a finished one costs nothing. The mmcv wheel is built once for each combination of
Python, torch, mmcv and device and kept in the cache folder (ICCONV_MM_CACHE, else $XDG_CACHE_HOME/icconv_mm, else
~/.cache/icconv_mm).
"""

import argparse
import fcntl
import hashlib
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
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FAST_CXX = ROOT / 'scripts' / 'fast_cxx.py'
HEARTBEAT_SECONDS = 15
FREE_GB = {'venv': 10, 'cache': 2}

BUILD_TOOLS = ['pip', 'setuptools', 'wheel', 'ninja', 'cython', 'numpy']
TORCH = ['torch', 'torchvision']
LIBRARIES = [
    'mmengine', 'mmdet', 'mmsegmentation', 'ftfy', 'regex', 'opencv-python', 'pycocotools', 'scipy', 'matplotlib',
    'rich', 'tqdm', 'tensorboard', 'onnx', 'onnxruntime', 'onnxscript',
    # what mmpose, mmpretrain and openmim ask for, without the packages that do not install beside the rest
    'json-tricks', 'munkres', 'einops', 'mat4py', 'modelindex', 'importlib-metadata',
    'click', 'colorama', 'requests', 'tabulate', 'pandas', 'model-index',
    'pytest', 'pytest-timeout', 'pytest-xdist', 'hypothesis', 'ruff', 'import-linter', 'clang-format',
]  # fmt: skip
SOURCE_ONLY = ['chumpy', 'xtcocotools']  # their builds import numpy and pip: no build isolation
WITHOUT_DEPENDENCIES = ['mmpose', 'mmpretrain', 'openmim']  # openmim's own would downgrade setuptools


class SetupError(Exception):
    """A sentence for the user: what is missing and how to mend it."""


def say(text: str) -> None:
    print(f'[setup {time.strftime("%H:%M:%S")}] {text}', flush=True)


def cache_folder() -> Path:
    if os.environ.get('ICCONV_MM_CACHE'):
        return Path(os.environ['ICCONV_MM_CACHE']).expanduser()
    return Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache') / 'icconv_mm'


def run(command, label, log, env=None, cwd=None, show=None) -> None:
    """Run a command; print the lines that `show` picks from its output, and a sign of life when there are none.

    Args:
        log: file that receives the whole output and is named when the command fails.
        show: callable line -> str | None.
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
            raise SetupError(
                f'{label}: the disk is full; free some space (about {FREE_GB["venv"]} GB) and run make again'
            )
        print('\n'.join(tail), file=sys.stderr)
        raise SetupError(f'{label} failed (the whole output is in {log}); mend the cause above and run make again')


def pip_progress(line: str):
    match = re.match(
        r'\s*(Collecting|Downloading|Using cached|Building wheel for|Installing collected packages:) ?(.*)', line
    )
    if not match:
        return None
    text = f'{match.group(1)} {match.group(2)}'.strip()
    return text if len(text) <= 110 else text[:107] + '...'


def ninja_progress():
    """Every tenth part of a ninja build, and what fast_cxx.py has to say."""
    last = [-1]

    def show(line):
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


class Environment:
    """One virtual environment and the steps that fill it."""

    def __init__(self, venv: Path, torch: str, device: str):
        self.venv, self.torch, self.device = venv, torch, device
        self.python = venv / 'bin' / 'python'
        self.stamps = venv / '.icconv_mm'
        self.constraints = ROOT / 'constraints' / f'torch-{torch}.txt'
        if not self.constraints.is_file():
            known = ', '.join(sorted(p.stem.removeprefix('torch-') for p in (ROOT / 'constraints').glob('torch-*.txt')))
            raise SetupError(f'TORCH={torch}: there are constraints for {known} only')
        common = self.constraints.with_name('common.txt').read_text()
        self.pin_text = common + self.constraints.read_text()
        self.pins = dict(re.findall(r'^([\w.-]+)==([\w.+-]+)', self.pin_text, re.M))

    def complete(self, name: str, key: str) -> bool:
        stamp = self.stamps / name
        return stamp.is_file() and stamp.read_text() == stamp_text(key)

    def step(self, name: str, key: str, action) -> None:
        """Do `action` unless it was completed before with the same `key`."""
        if self.complete(name, key):
            return
        begin = time.monotonic()
        say(f'{name} ...')
        action()
        self.stamps.mkdir(parents=True, exist_ok=True)
        (self.stamps / name).write_text(stamp_text(key))
        say(f'{name}: done in {time.monotonic() - begin:.0f} s')

    def pip(self, label, *arguments, env=None) -> None:
        command = [self.python, '-m', 'pip', 'install', '--disable-pip-version-check', '--progress-bar', 'off',
                   '-c', self.constraints, *arguments]  # fmt: skip
        run(command, label, self.stamps / f'{label}.log', env=env, show=pip_progress)

    def create(self) -> None:
        check_disk(self.venv.parent, FREE_GB['venv'], 'the virtual environment')
        try:
            import ensurepip  # noqa: F401
            import venv
        except ImportError as error:
            raise SetupError(
                f'this Python ({sys.executable}) cannot make virtual environments; '
                'install its venv module (Debian, Ubuntu: apt-get install python3-venv) and run make again'
            ) from error
        shutil.rmtree(self.venv, ignore_errors=True)
        venv.create(self.venv, with_pip=True, symlinks=True)

    def install_libraries(self) -> None:
        """The libraries arrive while mmcv compiles; then its wheel is installed."""
        key = f'{self.pins["torch"]} {self.pins["mmcv"]} {self.device}'
        with ThreadPoolExecutor(1) as other:  # mmcv stays here: whoever interrupts this thread ends its compilers
            arriving = other.submit(self.step, 'libraries', self.pin_text + str(LIBRARIES),
                                    lambda: self.pip('libraries', *LIBRARIES, *TORCH))  # fmt: skip
            wheel = None if self.complete('mmcv', key) else mmcv_wheel(self)
            arriving.result()
        self.step('mmcv', key, lambda: self.pip('mmcv', '--no-deps', '--force-reinstall', wheel))

    def install_package(self) -> None:
        self.pip('icconv_mm', '-v', '--no-build-isolation', '--no-deps', '-e', ROOT, env={
            'ICCONV_MM_EXT': extension_mode(self.device), 'MAX_JOBS': jobs()})  # fmt: skip
        lines = (line.strip() for line in (self.stamps / 'icconv_mm.log').read_text().splitlines())
        for notice in dict.fromkeys(line for line in lines if line.startswith('icconv_mm: ')):
            say(notice)

    def fill(self) -> None:
        pins = self.pin_text
        self.step('venv', '', self.create)
        self.step('build tools', pins, lambda: self.pip('build tools', *BUILD_TOOLS))
        self.step('torch', pins, lambda: self.pip('torch', *TORCH, 'numpy'))
        self.install_libraries()
        self.step('source packages', pins,
                  lambda: self.pip('source packages', '--no-build-isolation', '--no-deps', *SOURCE_ONLY))  # fmt: skip
        self.step('task libraries', pins, lambda: self.pip('task libraries', '--no-deps', *WITHOUT_DEPENDENCIES))
        compilers = [shutil.which(os.environ.get('CXX', 'c++')), shutil.which('nvcc'), os.environ.get('CUDA_HOME')]
        key = [source_key(), self.pins['torch'], extension_mode(self.device), ROOT, compilers]
        self.step('icconv_mm', str(key), self.install_package)


def stamp_text(key: str) -> str:
    return hashlib.sha256(f'{sys.version}\n{key}'.encode()).hexdigest()


def source_key() -> str:
    """Changes with whatever an editable install depends on; Python files are read in place."""
    files = [ROOT / 'setup.py', ROOT / 'pyproject.toml', *sorted(p for p in (ROOT / 'csrc').rglob('*') if p.is_file())]
    return hashlib.sha256(b''.join(p.read_bytes() for p in files)).hexdigest()


def extension_mode(device: str) -> str:
    """What setup.py is asked to compile: with DEVICE=cuda, CUDA operators or an error."""
    return os.environ.get('ICCONV_MM_EXT', {'cpu': 'auto', 'cuda': 'cuda'}[device])


@contextmanager
def only_one():
    """Set-ups of one checkout run one after the other: they share its build folders."""
    with open(ROOT / '.setup.lock', 'w') as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say('another set-up of this checkout is at work; waiting for it')
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def jobs() -> str:
    return os.environ.get('MAX_JOBS', str(os.cpu_count() or 1))


def check_disk(folder: Path, gigabytes: int, what: str) -> None:
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free / 1e9
    if free < gigabytes:
        raise SetupError(
            f'{what} needs about {gigabytes} GB in {folder}, {free:.1f} GB are free; make room and run make again'
        )


def check_compiler() -> None:
    compiler = os.environ.get('CXX', 'c++')
    if shutil.which(compiler) is None:
        raise SetupError(
            f'no C++ compiler found ({compiler}), and mmcv must be compiled once; '
            'install one (Debian, Ubuntu: apt-get install g++) and run make again'
        )
    if not Path(sysconfig.get_path('include'), 'Python.h').is_file():
        raise SetupError(
            f'the headers of this Python ({sys.executable}) are missing, and mmcv must be compiled once; '
            'install them (Debian, Ubuntu: apt-get install python3-dev) and run make again'
        )


def fast_compiler(folder: Path, headers: list[str]) -> dict:
    """Variables under which a build calls fast_cxx.py as its C++ compiler, with `headers` precompiled in `folder`.

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
    }


def cuda_environment(env: Environment) -> dict:
    """Variables under which mmcv's CUDA operators compile against torch's own CUDA packages."""
    home = os.environ.get('CUDA_HOME', '/usr/local/cuda')
    if not Path(home, 'bin', 'nvcc').is_file():
        raise SetupError(
            f'DEVICE=cuda needs the CUDA compiler, and {home}/bin/nvcc does not exist; '
            'install the CUDA toolkit of the version torch was built with, or set CUDA_HOME'
        )
    # the toolkit folder may lack cusparse.h and friends; torch's pip packages carry them
    site = next((env.venv / 'lib').glob('python3*')) / 'site-packages' / 'nvidia'
    headers = [str(p) for p in sorted([*site.glob('cu*/include'), *site.glob('*/include')])]
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


def mmcv_wheel(env: Environment) -> Path:
    """The mmcv wheel for this environment from the cache, built on the first call."""
    version = env.pins['mmcv']
    python = f'py{sys.version_info.major}{sys.version_info.minor}'
    key = f'mmcv-{version}-{python}-torch{env.pins["torch"]}-{env.device}'
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


def build_mmcv(env: Environment, version: str, work: Path, target: Path) -> Path:
    """Build in `work`, where the next call continues an interrupted build, and keep the wheel in `target`."""
    source = work / f'mmcv-{version}'
    if not (work / 'unpacked').is_file():
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        download = [env.python, '-m', 'pip', 'download', '--disable-pip-version-check', '--no-deps']
        download += ['--no-binary', ':all:', '--no-build-isolation', '-d', work, f'mmcv=={version}']
        run(download, 'fetching mmcv', work / 'download.log')
        with tarfile.open(next(work.glob('mmcv-*.tar.gz'))) as archive:
            archive.extractall(work, **({'filter': 'data'} if hasattr(tarfile, 'data_filter') else {}))
        (work / 'unpacked').touch()
    minutes = '10 to 25' if env.device == 'cuda' else '2 to 4'
    say(f'compiling mmcv {version} for {env.device} with {jobs()} jobs: about {minutes} minutes on two cores, once')
    variables = {'MMCV_WITH_OPS': '1', 'FORCE_CUDA': '0', 'MAX_JOBS': jobs()}
    variables |= fast_compiler(work / 'compiler', ['torch/types.h'])
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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--venv', type=Path, required=True)
    parser.add_argument('--torch', default='2.11', help='which constraints file: constraints/torch-VERSION.txt')
    parser.add_argument('--device', choices=['cpu', 'cuda'], default='cpu')
    args = parser.parse_args()
    try:
        with only_one():
            Environment((ROOT / args.venv).absolute(), args.torch, args.device).fill()
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
