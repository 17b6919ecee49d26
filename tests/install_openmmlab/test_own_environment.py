"""The set-up for who does not use make: it says what it would do, and does nothing unless told."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from icconv_mm import versions
from icconv_mm.install_openmmlab import __main__ as command
from icconv_mm.install_openmmlab import constraints, route
from icconv_mm.install_openmmlab import own_environment as own
from icconv_mm.install_openmmlab.processes import SetupError

PINS = constraints.read_pins((constraints.constraints_folder() / 'common.txt').read_text())


def environment(to=None, **installed):
    installed = {'torch': '2.11.0+cpu', 'pip': '25.0.1', **{name.replace('_', '-'): v for name, v in installed.items()}}
    return own.OwnEnvironment(to, 'cpu', installed)


def test_plan_names_what_would_change():
    lines = environment(setuptools='82.0.0', numpy='2.3.0', pillow='10.0.0', mmcv_lite='2.1.0').plan()
    assert lines[0].endswith('torch 2.11.0, mmcv for cpu')
    (new,) = (line for line in lines if line.startswith('new, with'))
    assert 'mmdet 3.3.0' in new and 'mmpose 1.3.2' in new and 'numpy' not in new and 'pip ' not in new
    assert f'replaced: setuptools 82.0.0 by {PINS["setuptools"]}' in lines
    assert f'replaced: numpy 2.3.0 by {PINS["numpy"]}' in lines
    assert f'replaced where a library requires them: pillow 10.0.0 by {PINS["pillow"]}' in lines
    assert 'removed: mmcv-lite 2.1.0' in lines
    assert lines[-1].startswith('mmcv is compiled')


@pytest.mark.parametrize(
    ('to', 'installed', 'words'),
    [
        (None, {'torch': '2.9.0'}, r'torch 2\.9\.0 is installed, .* torch 2\.1, 2\.11, 2\.15; --torch 2\.11 installs'),
        ('1.13', {}, r'TORCH=1\.13: there are constraints for 2\.1, 2\.11, 2\.15 only'),
    ],
)
def test_torch_without_pins(to, installed, words):
    with pytest.raises(SetupError, match=words):
        environment(to, **installed)


def test_another_torch_is_said():
    assert 'replaced: torch 2.15.0 by 2.11.0' in environment('2.11', torch='2.15.0').plan()


def test_forks_stay():
    words = r'^onedl-mmcv, onedl-mmengine: installed, under the import names of mmcv, mmdet'
    with pytest.raises(SetupError, match=words):
        environment(onedl_mmengine='0.10.12', onedl_mmcv='2.3.6').plan()


def test_todays_torch_goes_with_the_forks():
    lines = environment(torch='2.15.0', onedl_mmengine='0.10.12').plan()
    assert lines[0].endswith('torch 2.15.0, mmcv for cpu')
    (new,) = (line for line in lines if line.startswith('new, with'))
    assert 'onedl-mmcv 2.3.6' in new and 'onedl-mmdetection 3.5.1' in new and ' mmdet ' not in new
    with pytest.raises(SetupError, match=r'^mmcv: installed, under the import names of onedl-mmcv'):
        environment(torch='2.15.0', mmcv='2.1.0').plan()


@pytest.mark.parametrize('library', ['torch', 'mmengine', 'mmcv'])
def test_it_runs_beside_what_the_package_refuses(library, tmp_path):
    refused, _ = versions.installed(library)  # or its fork
    torch = '2.15' if versions.installed('mmcv')[0] == 'onedl-mmcv' else '2.11'
    folder = tmp_path / f'{refused.replace("-", "_")}-0.1.dist-info'
    folder.mkdir()
    (folder / 'METADATA').write_text(f'Metadata-Version: 2.1\nName: {refused}\nVersion: 0.1\n')
    paths = [str(tmp_path), str(Path(versions.__file__).parents[1])]
    env = {**os.environ, 'PYTHONPATH': os.pathsep.join(paths)}

    def python(*arguments):
        return subprocess.run([sys.executable, *arguments], env=env, capture_output=True, text=True, cwd=tmp_path)

    refusal = python('-c', 'import icconv_mm.registry')
    assert refusal.returncode and f'{library}: found {refused} 0.1' in refusal.stderr
    plan = python('-m', 'icconv_mm.install_openmmlab', '--torch', torch, '--device', 'cpu')
    assert plan.returncode == 0, plan.stderr
    assert f'replaced: {refused} 0.1 by ' in plan.stdout and plan.stdout.endswith('--yes does this.\n')


def test_dry_run_starts_no_process(monkeypatch, capsys):
    monkeypatch.setattr(subprocess, 'Popen', None)
    monkeypatch.setattr(command, 'installed_here', lambda: {'torch': '2.11.0'})
    assert command.main(['--device', 'cpu']) == 0
    assert capsys.readouterr().out.endswith('Nothing was changed; --yes does this.\n')
    monkeypatch.setattr(command, 'installed_here', lambda: {'torch': '2.9.0'})
    assert command.main(['--device', 'cpu', '--yes']) == 1
    assert capsys.readouterr().err.startswith('error: torch 2.9.0 is installed')


def test_the_steps_come_in_the_order_in_which_they_build(monkeypatch, tmp_path):
    calls = []
    target = environment(mmcv_lite='2.1.0')
    monkeypatch.setattr(route, 'mmcv_wheel', lambda target: 'mmcv.whl')
    monkeypatch.setattr(own, 'run', lambda command, label, log, **_: calls.append(label))
    monkeypatch.setattr(target, 'pip', lambda label, *arguments, **_: calls.append(label))
    target.fill()
    assert calls == ['removing', 'build tools', 'torch', 'libraries', 'source packages', 'task libraries', 'mmcv']


@pytest.mark.parametrize(('torch', 'imports'), [('2.11', 'mmdet, mmseg, mmpose'), ('2.15', 'mmdet, mmseg')])
def test_what_is_to_be_tried_was_installed(monkeypatch, capsys, torch, imports):
    monkeypatch.setattr(command, 'installed_here', lambda: {})
    monkeypatch.setattr(own.OwnEnvironment, 'fill', lambda self: None)
    assert command.main(['--device', 'cpu', '--torch', torch, '--yes']) == 0
    assert f'"import icconv_mm.registry, {imports}"' in capsys.readouterr().out
