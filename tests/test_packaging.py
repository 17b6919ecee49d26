"""Wheel, source distribution and editable install, with and without a compiler."""

import importlib.metadata
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
from linked_packages import link, requirements
from trees import copy_tracked

from icconv_mm import __version__

pytestmark = pytest.mark.slow
WEIGHTS = 'icconv_mm/weights'


@pytest.fixture(scope='module')
def tree(repo, tmp_path_factory):
    tree = copy_tracked(repo, tmp_path_factory.mktemp('tree'))
    (tree / WEIGHTS / 'drawn.safetensors').write_bytes(bytes(8))  # whatever weights the package has
    return tree


def build(tree, out, hook, **env):
    shutil.rmtree(tree / 'build', ignore_errors=True)  # setuptools would take yesterday's files from it
    code = f'from setuptools import build_meta; print("BUILT", build_meta.{hook}({str(out)!r}))'
    return subprocess.run(
        [sys.executable, '-c', code], cwd=tree, capture_output=True, text=True, env={**os.environ, **env}
    )


def names_of(wheel):
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


def sources_of_the_runtime(tree):
    folder = tree / 'icconv_mm_runtime'
    sources = [*folder.rglob('*.py'), *folder.glob('extra/page/*')]
    sources = {str(path.relative_to(tree)) for path in sources if 'build' not in path.relative_to(folder).parts}
    assert {f'icconv_mm_runtime/extra/{name}' for name in ('web.py', 'ray.py', 'page/index.html')} <= sources
    return sources


def text_of(wheel, name):
    with zipfile.ZipFile(wheel) as archive:
        return archive.read(f'icconv_mm-{__version__}.dist-info/{name}').decode()


def test_sdist_builds_the_wheel_that_mim_needs(tree, tmp_path):
    done = build(tree, tmp_path, 'build_sdist', ICCONV_MM_EXT='off')
    assert done.returncode == 0, done.stderr[-2000:]
    with tarfile.open(next(tmp_path.glob('*.tar.gz'))) as archive:
        archive.extractall(tmp_path, **({'filter': 'data'} if hasattr(tarfile, 'data_filter') else {}))
    unpacked = next(p for p in tmp_path.iterdir() if p.is_dir())
    sources = [path.relative_to(tree) for path in (tree / 'csrc').rglob('*') if path.is_file()]
    assert sources and all((unpacked / path).is_file() for path in sources)
    weights = {f'{WEIGHTS}/{path.name}' for path in (tree / WEIGHTS).iterdir()}
    assert {f'{WEIGHTS}/drawn.safetensors', f'{WEIGHTS}/README.md'} <= weights
    texts = ('LICENSE', 'NOTICE', 'CITATION.cff', 'CHANGELOG.md')
    assert all((unpacked / name).is_file() for name in (*texts, *weights))
    done = build(unpacked, tmp_path, 'build_wheel', ICCONV_MM_EXT='off')
    assert done.returncode == 0, done.stderr[-2000:]
    names = names_of(next(tmp_path.glob('*.whl')))
    tools = [str(path.relative_to(tree)) for path in (tree / 'tools').rglob('*.py')]  # with what is behind them
    tools = [name for name in tools if not name.startswith('tools/dev/')]
    for wanted in (*tools, 'constraints/common.txt', 'configs/_base_/backbones/ic_resnet18.py', 'model-index.yml'):
        assert f'icconv_mm/.mim/{wanted}' in names  # for openmim
        assert f'icconv_mm-{__version__}.dist-info/.mim/{wanted}' in names  # for onedl-mim
    assert 'icconv_mm/py.typed' in names and weights <= set(names)
    assert 'icconv = icconv_mm.__main__:main' in text_of(next(tmp_path.glob('*.whl')), 'entry_points.txt')
    assert sources_of_the_runtime(tree) <= set(names)
    assert all(f'icconv_mm-{__version__}.dist-info/licenses/{name}' in names for name in ('LICENSE', 'NOTICE'))
    assert not [name for name in names if name.startswith('tests/') or '/tools/dev/' in name or name.endswith('.so')]


def test_the_wheel_of_the_runtime_has_all_its_files(tree, tmp_path):
    done = build(tree / 'icconv_mm_runtime', tmp_path, 'build_wheel')
    assert done.returncode == 0, done.stderr[-2000:]
    (wheel,) = tmp_path.glob('*.whl')
    names = {name for name in names_of(wheel) if '.dist-info/' not in name}
    assert names == sources_of_the_runtime(tree)
    site = tmp_path / 'site'
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    code = (
        f'import sys; sys.path.insert(0, {str(site)!r}); from icconv_mm_runtime import web\n'
        f'print(web.__file__.startswith({str(site)!r}), web.library_version())'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout.startswith('True ') and done.stdout.split()[1], done.stderr


def test_broken_compiler_leaves_a_working_package(tree, tmp_path):
    broken = {'CC': 'false', 'CXX': 'false'}
    done = build(tree, tmp_path, 'build_wheel', ICCONV_MM_EXT='auto', **broken)
    assert done.returncode == 0, done.stderr[-2000:]
    assert 'without compiled operators (the build failed' in done.stdout
    wheel = next(tmp_path.glob('*.whl'))
    assert not [name for name in names_of(wheel) if name.endswith('.so')]
    site = tmp_path / 'site'
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    code = (
        'import torch, icconv_mm\n'
        f'assert icconv_mm.__file__.startswith({str(site)!r})\n'
        'layer = icconv_mm.layers.ICConv2d(3, 4, [(2, 1, 1), (2, 2, 2)])\n'
        'assert layer(torch.zeros(1, 3, 5, 5)).shape == (1, 4, 5, 5)\n'
    )
    subprocess.run([sys.executable, '-c', code], cwd=tmp_path, env={**os.environ, 'PYTHONPATH': str(site)}, check=True)
    done = build(tree, tmp_path, 'build_wheel', ICCONV_MM_EXT='require', **broken)
    assert done.returncode != 0 and 'were required, but the build failed' in done.stdout + done.stderr


@pytest.fixture(scope='module')
def compiled_wheel(tree):
    """The file that ``make wheel`` writes for this Python and its torch."""
    if shutil.which('make') is None or shutil.which(os.environ.get('CXX', 'c++')) is None:
        pytest.skip('there is no make or no C++ compiler')
    done = subprocess.run(['make', 'wheel', f'PYTHON={sys.executable}'], cwd=tree, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-2000:]
    (wheel,) = (tree / 'dist').iterdir()
    return wheel


def test_wheel_runs_compiled_operators_where_there_is_no_compiler(compiled_wheel, tree, tmp_path):
    torch_version = '.'.join(importlib.metadata.version('torch').split('.')[:2])
    assert f'+torch{torch_version}-cp{sys.version_info.major}{sys.version_info.minor}-' in compiled_wheel.name
    venv.create(tmp_path / 'venv', symlinks=True, with_pip=True)
    python = tmp_path / 'venv/bin/python'
    site = Path(sysconfig.get_path('purelib', vars={'base': str(tmp_path / 'venv')}))
    link(requirements(['torch', 'numpy', 'pytest', 'hypothesis']), site)

    def run(*arguments):
        bare = {'PATH': str(tmp_path / 'venv/bin'), 'CC': 'false', 'CXX': 'false', 'HOME': str(tmp_path)}
        bare['ICCONV_MM_REQUIRE_CPU'] = '1'  # of the tests of operators: not to skip
        done = subprocess.run([python, '-I', *arguments], cwd=tmp_path, capture_output=True, text=True, env=bare)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        return done.stdout

    run('-m', 'pip', 'install', '--no-index', '--no-deps', compiled_wheel)  # what it requires is linked
    output = run('-c', 'import icconv_mm.ops as ops; print(ops.__file__, ops.backends()["cpu"])')
    assert output.startswith(str(site)) and "available=True, reason='compiled operators loaded'" in output
    tests = [tree / f'tests/ops/test_{name}.py' for name in ('convolution_cpu', 'integrated_norm', 'pyramid_sum')]
    assert ' passed' in run('-m', 'pytest', '-q', '-p', 'no:cacheprovider', *tests)
