"""The set-up that `make` runs: steps, progress, and one sentence for whatever is missing."""

import importlib
import re
import subprocess
import sys
import tarfile
import threading

import pytest


@pytest.fixture(scope='module')
def setup_env():
    return importlib.import_module('setup_env')


@pytest.fixture
def environment(setup_env, tmp_path):
    return setup_env.Environment(tmp_path / 'venv', '2.11', 'cpu')


def test_step_runs_again_until_complete_then_only_for_another_key(environment):
    calls = []

    def interrupted():
        calls.append('interrupted')
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        environment.step('libraries', 'a', interrupted)
    for key in 'aab':
        environment.step('libraries', key, lambda key=key: calls.append(key))
    assert calls == ['interrupted', 'a', 'b']


def test_every_constraint_is_a_name_and_a_version(repo, setup_env):
    for path in (repo / 'constraints').glob('*.txt'):
        for line in path.read_text().splitlines():
            if line and not line.startswith(('#', '-c common.txt')):
                assert re.match(r'^[\w.-]+==[\w.+-]+(; python_version (<|>=) "3\.\d+")?$', line), (path, line)
    pins = setup_env.Environment(repo / 'nowhere', '2.1', 'cpu').pins
    assert pins['torch'] == '2.1.2' and pins['mmcv'] == '2.1.0'


def test_unknown_torch_is_named(setup_env, tmp_path):
    with pytest.raises(setup_env.SetupError, match=r'TORCH=1\.13.*2\.1, 2\.11'):
        setup_env.Environment(tmp_path, '1.13', 'cpu')


def test_missing_compiler_is_one_sentence(setup_env, monkeypatch):
    monkeypatch.setenv('CXX', 'no-such-compiler')
    with pytest.raises(
        setup_env.SetupError, match=r'no C\+\+ compiler found \(no-such-compiler\).*apt-get install g\+\+'
    ):
        setup_env.mmcv_wheel.check_compiler()


def test_full_disk_is_one_sentence(setup_env, tmp_path):
    with pytest.raises(setup_env.SetupError, match=r'needs about 10000000 GB'):
        setup_env.processes.check_disk(tmp_path / 'not' / 'yet', 10_000_000, 'the virtual environment')
    with pytest.raises(setup_env.SetupError, match='the disk is full'):
        code = 'print("OSError: [Errno 28] No space left on device"); raise SystemExit(1)'
        setup_env.processes.run([sys.executable, '-c', code], 'torch', tmp_path / 'log')


def test_todays_end_has_versions_of_its_own(setup_env, tmp_path):
    constraints, environment = setup_env.installer('constraints'), setup_env.Environment(tmp_path, '2.15', 'cpu')
    assert environment.pins['torch'] == '2.15.0' and environment.pins['numpy'].startswith('2.')
    libraries = environment.those(constraints.LIBRARIES)
    assert {'onedl-mmengine', 'onedl-mmdetection', 'onedl-mmsegmentation', 'rich'} <= set(libraries)
    assert environment.those(['mmpretrain', 'mmpose']) == ['onedl-mmpretrain']
    provided = {*constraints.FORKS, *constraints.FORKS.values()} & environment.pins.keys()
    assert provided == set(constraints.FORKS.values())
    assert environment.pins.keys() >= {*libraries, *setup_env.FOR_TESTS, 'timm', 'torchvision'}


@pytest.mark.parametrize(('torch', 'wanted'), [('2.1', '3.10 to 3.11'), ('2.11', '3.10 to 3.12'), ('2.15', '3.13')])
def test_no_suitable_python_is_one_sentence(repo, torch, wanted):
    command = ['sh', repo / 'scripts' / 'setup_env.sh', torch, '--venv', 'nowhere']
    done = subprocess.run(command, env={'PYTHON': 'false', 'PATH': '/usr/bin:/bin'}, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.count('\n') == 1 and 'install one' in done.stderr
    assert f'torch {torch} needs Python {wanted}, ' in done.stderr


def test_progress_and_failure(setup_env, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(setup_env.processes, 'HEARTBEAT_SECONDS', 0)
    code = 'import time\nfor i in range(1, 21): print(f"[{i}/20] c++ x", flush=True)\ntime.sleep(2.2)'
    setup_env.processes.run(
        [sys.executable, '-c', code], 'compiling', tmp_path / 'log', show=setup_env.mmcv_wheel.ninja_progress()
    )
    out = capsys.readouterr().out
    assert 'compiling mmcv: 10 of 20 files' in out and 'compiling ... 2 s' in out
    with pytest.raises(setup_env.SetupError, match=r'torch failed.*log'):
        setup_env.processes.run([sys.executable, '-c', 'raise SystemExit(3)'], 'torch', tmp_path / 'log')


def test_cached_wheel_needs_no_compiler(setup_env, environment, monkeypatch, tmp_path):
    monkeypatch.setenv('ICCONV_MM_CACHE', str(tmp_path / 'cache'))
    monkeypatch.setenv('CXX', 'no-such-compiler')
    with pytest.raises(setup_env.SetupError, match='no C'):
        setup_env.mmcv_wheel.mmcv_wheel(environment)
    (folder,) = [p for p in (tmp_path / 'cache' / 'wheels').iterdir() if p.is_dir()]
    assert folder.name == f'mmcv-2.1.0-py{sys.version_info.major}{sys.version_info.minor}-torch2.11.0-cpu'
    (folder / 'mmcv-2.1.0-any.whl').touch()
    assert setup_env.mmcv_wheel.mmcv_wheel(environment) == folder / 'mmcv-2.1.0-any.whl'


def test_mmcv_is_fetched_and_compiled_as_the_torch_needs_it(setup_env, monkeypatch, tmp_path):
    """The sdist of the fork, and the language standard of torch's headers instead of the one that it asks for."""
    commands, variables = [], {}

    def run(command, label, log, env=None, cwd=None, **_):
        commands.append([str(part) for part in command])
        if label == 'fetching mmcv':
            (tmp_path / 'onedl_mmcv-2.3.6').mkdir()
            (tmp_path / 'onedl_mmcv-2.3.6/setup.py').touch()
            with tarfile.open(tmp_path / 'work/onedl_mmcv-2.3.6.tar.gz', 'w:gz') as archive:
                archive.add(tmp_path / 'onedl_mmcv-2.3.6', 'onedl_mmcv-2.3.6')
        else:
            variables.update(env)
            assert (cwd / 'setup.py').is_file() and cwd.name == 'onedl_mmcv-2.3.6'
            (tmp_path / 'work/dist').mkdir()
            (tmp_path / 'work/dist/onedl_mmcv.whl').touch()

    monkeypatch.setattr(setup_env.mmcv_wheel, 'run', run)
    environment = setup_env.Environment(tmp_path / 'venv', '2.15', 'cpu')
    (tmp_path / 'target').mkdir()
    wheel = setup_env.mmcv_wheel.build_mmcv(environment, '2.3.6', tmp_path / 'work', tmp_path / 'target')
    assert wheel == tmp_path / 'target/onedl_mmcv.whl' and wheel.is_file()
    assert commands[0][-1] == 'onedl-mmcv==2.3.6' and variables['ICCONV_MM_CXX_STANDARD'] == 'c++20'


@pytest.fixture
def without_pip(setup_env, environment, monkeypatch):
    """An environment whose steps only say their names: to ``pip`` of the test, and to ``installed``."""

    def prepare(pip, compile_mmcv=lambda env: 'mmcv.whl'):
        monkeypatch.setattr(setup_env.route, 'mmcv_wheel', compile_mmcv)
        monkeypatch.setattr(environment, 'create', lambda: None)
        monkeypatch.setattr(environment, 'pip', pip)
        monkeypatch.setattr(environment, 'install_package', lambda: pip('icconv_mm'))
        return environment

    return prepare


def test_libraries_and_package_arrive_while_mmcv_compiles(without_pip):
    arrived, order = {'libraries': threading.Event(), 'icconv_mm': threading.Event()}, []

    def compile_mmcv(env):
        for name, event in arrived.items():
            assert event.wait(60), f'{name} waits for mmcv'
        order.append('compiled')
        return 'mmcv.whl'

    def pip(label, *arguments, env=None):
        order.append(label)
        if label in arrived:
            arrived[label].set()

    environment = without_pip(pip, compile_mmcv)
    environment.fill()
    assert order[:2] == ['build tools', 'torch'] and order[-1] == 'mmcv'
    assert sorted(order[2:-1]) == sorted(['compiled', 'icconv_mm', 'libraries', 'source packages', 'task libraries'])
    done = len(order)
    environment.fill()
    assert len(order) == done


def test_what_tests_need_is_asked_for(without_pip):
    """`make demo` does without it."""
    labels = []
    environment = without_pip(lambda label, *arguments, env=None: labels.append(label))
    environment.fill()
    assert 'for tests' not in labels
    environment.for_tests = True
    environment.fill()
    assert labels[-2:] == ['for tests', 'for tests, alone']


def test_kernels_for_tests_are_compiled_once_and_serve_both(setup_env, environment, monkeypatch):
    built = []

    def pip(label, *arguments, env):
        built.append(env['ICCONV_MM_EXT_TESTS'])
        environment.stamps.mkdir(parents=True, exist_ok=True)
        (environment.stamps / f'{label}.log').touch()

    monkeypatch.setattr(environment, 'pip', pip)

    def own_package(for_tests, sources='these'):
        monkeypatch.setattr(setup_env, 'source_key', lambda: sources)
        environment.for_tests = for_tests
        environment.own_package()

    for for_tests in (False, False, True, True, False):
        own_package(for_tests)
    assert built == ['0', '1']
    own_package(False, 'others')  # in the place of the one for tests
    own_package(True)
    assert built == ['0', '1', '0', '1']


def test_failing_libraries_are_an_error_and_the_next_call_goes_on(setup_env, without_pip):
    failing, installed = ['libraries'], []

    def pip(label, *arguments, env=None):
        if label in failing:
            raise setup_env.SetupError(f'{label} failed')
        installed.append(label)

    environment = without_pip(pip)
    with pytest.raises(setup_env.SetupError, match='libraries failed'):
        environment.fill()
    assert installed == ['build tools', 'torch', 'icconv_mm']
    failing.clear()
    environment.fill()
    assert installed[3:] == ['libraries', 'source packages', 'task libraries', 'mmcv']
