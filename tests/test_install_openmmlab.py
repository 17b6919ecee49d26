"""The installer: it says what it would do, does nothing unless told, and reads the constraints for this Python."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from icconv_mm import versions
from icconv_mm.app import install_openmmlab as installer

PINS = installer.read_pins((installer.constraints_folder() / 'common.txt').read_text())


def installed(**names):
    return {'torch': '2.11.0+cpu', 'pip': '25.0.1', **{name.replace('_', '-'): v for name, v in names.items()}}


def test_pins_are_in_the_supported_range():
    for name, (distributions, low, high) in versions.SUPPORTED.items():
        pin = installer.Versions('2.11').pins[distributions[0]]
        assert versions._release(low) <= versions._release(pin) < versions._release(high), name


def test_every_constraint_is_a_name_and_a_version():
    for path in installer.constraints_folder().glob('*.txt'):
        for line in path.read_text().splitlines():
            if line and not line.startswith(('#', '-c common.txt')):
                assert re.match(r'^[\w.-]+==[\w.+-]+(; python_version (<|>=) "3\.\d+")?$', line), (path, line)


def test_all_that_is_asked_for_is_pinned():
    everything = {name for arguments in installer.Versions('2.11').steps().values() for name in arguments}
    everything = {installer.canonical(name) for name in everything if not name.startswith('-')}
    assert everything - {*PINS, *installer.TORCH} == set()
    assert {'mmengine', 'mmdet', 'mmsegmentation', 'mmpose', 'mmpretrain'} <= everything


def test_the_newest_torch_has_the_forks():
    newest = installer.Versions('2.15')
    assert newest.pins['torch'] == '2.15.0' and newest.pins['numpy'].startswith('2.')
    libraries = newest.steps()['libraries']
    assert {'onedl-mmengine', 'onedl-mmdetection', 'onedl-mmsegmentation', 'rich'} <= set(libraries)
    assert newest.those(['mmpretrain', 'mmpose']) == ['onedl-mmpretrain']
    assert {*installer.FORKS, *installer.FORKS.values()} & newest.pins.keys() == set(installer.FORKS.values())


def test_torch_without_pins():
    words = r'torch 2\.9\.0 is installed, .* torch 2\.1, 2\.11, 2\.15; --torch 2\.11 installs'
    with pytest.raises(installer.SetupError, match=words):
        installer.versions_for({'torch': '2.9.0'})
    with pytest.raises(installer.SetupError, match=r'TORCH=1\.13: there are constraints for 2\.1, 2\.11, 2\.15 only'):
        installer.Versions('1.13')


@pytest.mark.parametrize(
    ('torch', 'names', 'words'),
    [
        ('2.11', {'onedl_mmengine': '0.10.12', 'onedl_mmcv': '2.3.6'}, 'onedl-mmcv, onedl-mmengine: .* of mmcv, mmdet'),
        ('2.15', {'mmcv': '2.1.0'}, 'mmcv: installed, under the import names of .*onedl-mmcv'),
    ],
)
def test_neither_a_library_nor_its_fork_is_put_over_the_other(torch, names, words):
    with pytest.raises(installer.SetupError, match=words):
        installer.plan_installation(installer.Versions(torch), installed(**names), 'cpu')


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
    done = python('-m', 'icconv_mm.install_openmmlab', '--torch', torch, '--device', 'cpu')
    assert done.returncode == 0, done.stderr
    assert f'replaced: {refused} 0.1 by ' in done.stdout and done.stdout.endswith('--yes does this.\n')


@pytest.fixture
def calls(monkeypatch):
    """The calls of pip, with what its environment adds; none is made."""
    calls = []
    monkeypatch.setattr(installer, 'pip', lambda *arguments, env=None: calls.append((arguments, env)))
    return calls


def test_nothing_is_done_without_yes(calls, monkeypatch, capsys):
    monkeypatch.setattr(installer, 'installed_here', lambda: {'torch': '2.11.0'})
    assert installer.main(['--device', 'cpu']) == 0
    assert capsys.readouterr().out.endswith('Nothing was changed; --yes does this.\n')
    monkeypatch.setattr(installer, 'installed_here', lambda: {'torch': '2.9.0'})
    assert installer.main(['--device', 'cpu', '--yes']) == 1
    assert capsys.readouterr().err.startswith('error: torch 2.9.0 is installed') and not calls


@pytest.mark.parametrize(
    ('torch', 'imports', 'mim', 'mmcv'),
    [('2.11', 'mmdet, mmseg, mmpose', 'openmim', 'mmcv'), ('2.15', 'mmdet, mmseg', 'onedl-mim', 'onedl-mmcv')],
)
def test_steps_come_in_the_order_in_which_they_build(calls, monkeypatch, capsys, torch, imports, mim, mmcv):
    monkeypatch.setattr(installer, 'installed_here', lambda: {'mmcv-lite': '2.1.0'})
    assert installer.main(['--device', 'cpu', '--torch', torch, '--yes']) == 0
    assert f'"import icconv_mm.registry, {imports}"' in capsys.readouterr().out
    assert calls[0][0] == ('uninstall', '-y', 'mmcv-lite')
    wanted = ['setuptools', 'torchvision', 'rich', mim, mmcv]
    assert [name in arguments for name, (arguments, _) in zip(wanted, calls[1:], strict=True)] == [True] * 5
    assert all(f'torch-{torch}.txt' in arguments[2] for arguments, _ in calls[1:])
