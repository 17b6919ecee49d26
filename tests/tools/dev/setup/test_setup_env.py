"""The set-up that `make` runs: steps, progress, and one message for whatever is missing."""

import shutil
import subprocess

import pytest

import setup_env


@pytest.fixture
def environment(tmp_path):
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


@pytest.mark.parametrize('torch', ['2.11', '2.15'])
def test_what_tests_need_is_pinned(tmp_path, torch):
    pins = setup_env.Environment(tmp_path, torch, 'cpu').versions.pins
    needed = *setup_env.FOR_EXPORT, *setup_env.FOR_TESTS, *setup_env.FOR_TESTS_WITHOUT_DEPENDENCIES
    assert pins.keys() >= {name.partition(';')[0] for name in needed}


@pytest.mark.parametrize(('torch', 'wanted'), [('2.1', '3.10 to 3.11'), ('2.11', '3.10 to 3.12'), ('2.15', '3.13')])
def test_no_suitable_python_is_one_message(repo, torch, wanted):
    command = ['sh', repo / 'tools/dev/setup/setup_env.sh', torch, '--venv', 'nowhere']
    done = subprocess.run(command, env={'PYTHON': 'false', 'PATH': '/usr/bin:/bin'}, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.count('\n') == 1 and 'install one' in done.stderr
    assert f'torch {torch} needs Python {wanted}, ' in done.stderr


def test_a_version_of_pyenv_serves_where_its_command_on_the_path_fails(repo, tmp_path):
    def script(path, *lines):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('\n'.join(['#!/bin/sh', *lines]))
        path.chmod(0o755)

    for name in ('python3.10', 'python3.11', 'python3.12', 'python3.13', 'python3'):
        script(tmp_path / 'bin' / name, 'exit 127')
    (tmp_path / 'bin/dirname').symlink_to(shutil.which('dirname'))
    script(tmp_path / 'versions/3.12.1/bin/python3', 'exit 1')
    script(tmp_path / 'versions/3.13.0/bin/python3', 'echo "$0 $1"')
    command = ['/bin/sh', repo / 'tools/dev/setup/setup_env.sh', '2.15', '--venv', 'nowhere']
    env = {'PATH': str(tmp_path / 'bin'), 'PYENV_ROOT': str(tmp_path)}
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    chosen, what = done.stdout.split()
    assert chosen == str(tmp_path / 'versions/3.13.0/bin/python3') and what.endswith('setup_env.py')
