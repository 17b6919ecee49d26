"""The compiler that precompiles headers: what it saves, and that it never stands in the way of a build."""

import os
import shutil
import subprocess

import pytest

import mmcv_wheel

COMPILER = os.environ.get('CXX', 'c++')
SOURCE = 'std::vector<int> numbers() { return {1, 2}; }\n'  # compiles with the header only

pytestmark = pytest.mark.skipif(shutil.which(COMPILER) is None, reason='no C++ compiler')


@pytest.fixture
def build(tmp_path, monkeypatch):
    """Compiles a text by the variables that the set-up gives to builds; a path with a space must not matter."""
    folder = tmp_path / 'a folder'

    def compile_text(text, *flags, header='vector', name='x'):
        monkeypatch.setenv('CXX', COMPILER)
        variables = mmcv_wheel.fast_compiler(folder, [header])
        (tmp_path / f'{name}.cpp').write_text(text)
        command = [variables['CXX'], '-MMD', '-MF', f'{name}.d', '-g', '-O2', '-c', *flags]  # -c twice, as torch does
        command += ['-c', f'{name}.cpp', '-o', f'{name}.o', '-std=c++17']
        return subprocess.run(command, cwd=tmp_path, env={**os.environ, **variables}, capture_output=True, text=True)

    compile_text.folder = folder
    return compile_text


def precompiled(folder):
    return sorted(folder.glob('*.gch'))


def test_header_is_compiled_once_for_the_same_flags(build, tmp_path):
    for name in 'xyz':
        done = build(SOURCE, name=name)
        assert done.returncode == 0, done.stderr
        assert (tmp_path / f'{name}.o').is_file() and (tmp_path / f'{name}.d').is_file()
    (header,) = precompiled(build.folder)
    modified = header.stat().st_mtime_ns
    assert build(SOURCE, '-DNUMBERS=2').returncode == 0
    assert len(precompiled(build.folder)) == 2 and header.stat().st_mtime_ns == modified


def test_file_that_the_header_breaks_is_compiled_without(build, tmp_path):
    (tmp_path / 'clash.h').write_text('int twice(int x);\n')
    done = build(
        'static int twice(int x) { return 2 * x; }\nint four() { return twice(2); }\n',
        f'-I{tmp_path}',
        header='clash.h',
    )
    assert done.returncode == 0 and (tmp_path / 'x.o').is_file() and precompiled(build.folder)
    assert 'fast_cxx: once more without the precompiled header: x.cpp' in done.stdout
