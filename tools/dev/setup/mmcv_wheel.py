"""The wheel of mmcv: compiled once for each combination of Python, torch, mmcv and device, and kept in a cache."""

import fcntl
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from processes import FREE_GB, SetupError, check_disk, installer, run, say

FAST_CXX = Path(__file__).with_name('fast_cxx.py')
JOINED = 'joined'  # the folder of the sources that are compiled as one, and that one's name
# The folders whose sources are joined, and which stay as they are: one that opens a namespace for all after it, one as
# long as the rest together; one that defines min and max, and those that define what others define.
JOINING = {
    'mmcv/ops/csrc/pytorch': ('contour_expand.cpp', 'pybind.cpp'),
    'mmcv/ops/csrc/pytorch/cpu': (
        'psamask.cpp', 'roi_align.cpp', 'roi_align_rotated.cpp', 'rotated_feature_align.cpp',
    ),
}  # fmt: skip


class Target(Protocol):
    """The environment that a wheel is for.

    Attributes:
        python: Its interpreter, of the version that runs this.
        site: The folder of its packages.
        versions: What belongs there.
        device: 'cpu' or 'cuda': for which mmcv is compiled.
    """

    python: Path
    site: Path
    versions: installer.Versions
    device: str


def cache_folder() -> Path:
    if os.environ.get('ICCONV_MM_CACHE'):
        return Path(os.environ['ICCONV_MM_CACHE']).expanduser()
    return Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache') / 'icconv_mm'


def mmcv_wheel(env: Target) -> Path:
    """The mmcv wheel for this environment from the cache, built on the first call."""
    name, pins = env.versions.mmcv, env.versions.pins
    python = f'py{sys.version_info.major}{sys.version_info.minor}'
    key = f'{name}-{pins[name]}-{python}-torch{pins["torch"]}-{env.device}'
    target = cache_folder() / 'wheels' / key
    target.mkdir(parents=True, exist_ok=True)
    with open(target.parent / f'{key}.lock', 'w') as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say('another set-up is building the same mmcv wheel; waiting for it')
            fcntl.flock(lock, fcntl.LOCK_EX)
        wheels = list(target.glob('*.whl'))
        if wheels:
            say(f'mmcv wheel from the cache: {wheels[0]}')
            return wheels[0]
        check_compiler()
        check_disk(target, FREE_GB['cache'], 'the build of mmcv')
        return build_mmcv(env, cache_folder() / 'build' / key, target)


def build_mmcv(env: Target, work: Path, target: Path) -> Path:
    """Build in `work`, where the next call continues an interrupted build, and keep the wheel in `target`."""
    wanted = f'{env.versions.mmcv}=={env.versions.pins[env.versions.mmcv]}'
    if not (work / 'unpacked').is_file():
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        download = [env.python, '-m', 'pip', 'download', '--disable-pip-version-check', '--no-deps']
        download += ['--no-binary', ':all:', '--no-build-isolation', '-d', work, wanted]
        run(download, 'fetching mmcv', work / 'download.log')
        with tarfile.open(next(work.glob('*.tar.gz'))) as archive:
            archive.extractall(work, **({'filter': 'data'} if hasattr(tarfile, 'data_filter') else {}))
        (work / 'unpacked').touch()
    source = next(path.parent for path in work.glob('*/setup.py'))
    minutes = '10 to 25' if env.device == 'cuda' else '2 to 4'
    say(f'compiling {wanted} for {env.device} with {jobs()} jobs: about {minutes} minutes on two cores, once')
    variables = {'MMCV_WITH_OPS': '1', 'FORCE_CUDA': '0', 'MAX_JOBS': jobs()}
    variables |= fast_compiler(work / 'compiler', ['torch/types.h'], installer.CXX_STANDARD.get(env.versions.torch))
    if env.device == 'cuda':
        variables |= cuda_environment(env)
    command = [env.python, 'setup.py', 'bdist_wheel', '-d', work / 'dist']
    joined = [folder for name, separate in JOINING.items() if join_sources(folder := source / name, separate)]
    try:
        run(command, 'compiling mmcv', work / 'build.log', cwd=source, env=variables, show=ninja_progress())
    except SetupError:
        if not joined:
            raise
        say('mmcv is compiled once more, each source on its own')
        for folder in joined:
            separate_sources(folder)
        run(command, 'compiling mmcv', work / 'build.log', cwd=source, env=variables, show=ninja_progress())
    built = next((work / 'dist').glob('*.whl'))
    partial = target / (built.name + '.part')
    shutil.copy(built, partial)
    partial.rename(target / built.name)
    shutil.rmtree(work, ignore_errors=True)
    return target / built.name


def join_sources(folder: Path, separate: Sequence[str] = ()) -> bool:
    """Let one source of `folder` include the others but for those that stay `separate`.

    torch's headers take each of them longer than its own lines.

    Returns whether there are any.
    """
    joined = folder / JOINED
    for path in folder.glob('*.cpp'):
        if path.name not in (*separate, f'{JOINED}.cpp'):
            joined.mkdir(exist_ok=True)
            path.rename(joined / path.name)
    if names := sorted(path.name for path in joined.glob('*.cpp')):
        (folder / f'{JOINED}.cpp').write_text(''.join(f'#include "{JOINED}/{name}"\n' for name in names))
    return bool(names)


def separate_sources(folder: Path) -> None:
    """Undo `join_sources`."""
    (folder / f'{JOINED}.cpp').unlink()
    for path in (folder / JOINED).glob('*.cpp'):
        path.rename(folder / path.name)


def ninja_progress() -> Callable[[str], str | None]:
    """Every tenth part of a ninja build, and what fast_cxx.py has to say."""
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


def jobs() -> str:
    return os.environ.get('MAX_JOBS', str(os.cpu_count() or 1))


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
    """Variables under which a build calls fast_cxx.py as its C++ compiler, with `headers` precompiled in `folder`.

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


def cuda_environment(env: Target) -> dict:
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
        'TORCH_CUDA_ARCH_LIST': os.environ.get('TORCH_CUDA_ARCH_LIST') or gpu_architectures(),
    }


def gpu_architectures() -> str:
    try:
        query = ['nvidia-smi', '--query-gpu=compute_cap', '--format=csv,noheader']
        architectures = subprocess.run(query, capture_output=True, text=True, check=True).stdout.split()
    except (OSError, subprocess.CalledProcessError):
        architectures = []
    return ';'.join(sorted(set(architectures))) or '8.0;9.0'
