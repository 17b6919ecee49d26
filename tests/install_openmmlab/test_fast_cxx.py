"""The compiler that precompiles headers: what it saves, and that it never stands in the way of a build."""

import fcntl
import os
import shutil
import subprocess

import pytest
import setup_env

COMPILER = os.environ.get('CXX', 'c++')
SOURCE = 'std::vector<int> numbers() { return {1, 2}; }\n'  # compiles with the header only

pytestmark = pytest.mark.skipif(shutil.which(COMPILER) is None, reason='no C++ compiler')


@pytest.fixture
def build(tmp_path, monkeypatch):
    """Compiles a text by the variables that the set-up gives to builds; a path with a space must not matter."""
    folder = tmp_path / 'a folder'

    def compile_text(text, *flags, compiler=COMPILER, header='vector', name='x', standard=None):
        monkeypatch.setenv('CXX', str(compiler))
        variables = setup_env.mmcv_wheel.fast_compiler(folder, [header], standard)
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
    made = header.stat().st_mtime_ns
    assert build(SOURCE, '-DNUMBERS=2').returncode == 0
    assert len(precompiled(build.folder)) == 2 and header.stat().st_mtime_ns == made


def test_header_is_read_precompiled(build):
    """-H names every header that the compiler reads: the first call makes the header, the second has no need of it."""
    first, second = build(SOURCE, '-H'), build(SOURCE, '-H')
    assert '/vector\n' in first.stderr
    assert second.returncode == 0 and '/vector\n' not in second.stderr


@pytest.mark.skipif(shutil.which('readelf') is None, reason='no readelf')
def test_objects_hold_no_debug_information(build, tmp_path):
    assert build(SOURCE).returncode == 0
    sections = subprocess.run(['readelf', '-S', '-W', tmp_path / 'x.o'], capture_output=True, text=True, check=True)
    assert '.text' in sections.stdout and '.debug' not in sections.stdout


def test_another_standard_takes_the_place_of_the_builds(build):
    text = '#include <vector>\nstatic_assert(__cplusplus == {}L);\nstd::vector<int> numbers;\n'
    for standard, number in ((None, 201703), ('c++20', 202002)):
        done = build(text.format(number), standard=standard)
        assert done.returncode == 0 and 'once more' not in done.stdout, done.stderr


def test_compiler_without_precompiled_headers_builds_all_the_same(build, tmp_path):
    plain = tmp_path / 'plain'
    plain.write_text(f'#!/bin/sh\ncase "$*" in *c++-header*) exit 1 ;; esac\nexec {COMPILER} "$@"\n')
    plain.chmod(0o755)
    first, second = (build('#include <vector>\n' + SOURCE, compiler=plain) for _ in range(2))
    assert first.returncode == second.returncode == 0 and (tmp_path / 'x.o').is_file()
    assert 'does not precompile headers' in first.stdout and 'precompile' not in second.stdout
    assert not precompiled(build.folder)


def test_file_that_the_header_breaks_is_compiled_without(build, tmp_path):
    (tmp_path / 'clash.h').write_text('int twice(int x);\n')
    done = build(
        'static int twice(int x) { return 2 * x; }\nint four() { return twice(2); }\n',
        f'-I{tmp_path}',
        header='clash.h',
    )
    assert done.returncode == 0 and (tmp_path / 'x.o').is_file() and precompiled(build.folder)
    assert 'fast_cxx: once more without the precompiled header: x.cpp' in done.stdout


def test_wrong_source_fails(build, tmp_path):
    done = build('int wrong() { return "text"; }\n')
    assert done.returncode != 0 and 'x.cpp:1' in done.stderr and not (tmp_path / 'x.o').exists()


def test_nobody_waits_for_the_header_of_another_call(build, tmp_path):
    assert build(SOURCE).returncode == 0
    (header,) = precompiled(build.folder)
    header.unlink()
    with open(header.with_suffix('').with_suffix('.lock'), 'w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert build('#include <vector>\n' + SOURCE).returncode == 0
    assert not precompiled(build.folder)


def test_other_calls_reach_the_compiler(build):
    variables = {'ICCONV_MM_CXX': COMPILER, 'ICCONV_MM_HEADERS': str(build.folder)}
    assert build(SOURCE).returncode == 0
    done = subprocess.run(
        [build.folder / f'{os.path.basename(COMPILER)}-fast', '-dumpversion'],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
    )
    wanted = subprocess.run([COMPILER, '-dumpversion'], capture_output=True, text=True).stdout
    assert wanted and done.stdout == wanted
