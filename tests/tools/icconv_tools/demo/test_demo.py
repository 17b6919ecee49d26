"""The command line of the demo, and the demo with the real tools."""

import json
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
import time

import pytest
from pretended_tools import DRAWING, run, use_home

from icconv_tools import HOME
from icconv_tools.demo.tasks import MULTITASK, SEPARATE
from icconv_tools.miniature import ensure_miniature


def _demo(home, data, monkeypatch, *arguments):
    """The exit status of tools/demo.py, on the tiny dataset."""
    monkeypatch.chdir(home.parent)
    monkeypatch.setattr('icconv_tools.demo.pipeline.ensure_miniature', lambda root, *_: ensure_miniature(root, DRAWING))
    monkeypatch.setattr(sys, 'argv', ['demo.py', '--data', str(data), *arguments])
    before = signal.getsignal(signal.SIGTERM)
    try:
        return runpy.run_path(str(HOME / 'tools/demo.py'))['main']()
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize(
    ('task', 'metrics', 'status'),
    [
        ('detection', {'coco/bbox_mAP_50': 0.6}, 0),
        ('instance', {'coco/bbox_mAP_50': 1.0, 'coco/segm_mAP_50': 0.49}, 1),
    ],
)
def test_exit_status(home, data, monkeypatch, task, metrics, status):
    (home / 'tools/metrics.json').write_text(json.dumps(metrics))
    assert _demo(home, data, monkeypatch, '--tasks', task) == status
    (row,) = json.loads((home.parent / 'work_dirs/demo/report.json').read_text())
    assert (row['value'] < row['threshold']) == bool(status)


def _refused(*arguments):
    with pytest.raises(SystemExit) as end:
        _demo(*arguments)
    return str(end.value)


def test_failing_tool_is_named_with_its_last_words(home, data, monkeypatch):
    (home / 'tools/test.py').write_text('import sys\nprint("the last words")\nsys.exit(3)')
    error = _refused(home, data, monkeypatch)
    assert re.match(r'error: 1/1 one network(, 3 scales)?: test failed with exit status 3(?s:.*)the last words', error)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--backbone', 'vgg16'], r'--backbone: no file .*vgg16.py; there are: .*ic_resnet18'),
        (['--tasks', 'detection', 'depth'], r'--tasks: no task depth; there are: all, detection, instance, semantic'),
        (['--data', __file__], r'exists and is not a miniature dataset'),
    ],
)
def test_bad_input(home, data, monkeypatch, arguments, message):
    error = _refused(home, data, monkeypatch, *arguments)
    assert re.match(f'error: .*{message}', error) and '\n' not in error


def test_a_terminated_demo_leaves_no_training_behind(repo, home, data, tmp_path):
    pid = tmp_path / 'pid'
    (home / 'tools/train.py').write_text(
        f'import os, time\nopen({str(pid)!r} + "x", "w").write(str(os.getpid()))\n'
        f'os.rename({str(pid)!r} + "x", {str(pid)!r})\ntime.sleep(60)'
    )
    script = (
        f'import pathlib, runpy, signal, sys\n'
        f'sys.path.insert(0, {str(repo / "tools")!r})\n'
        f'import icconv_tools\n'
        f'icconv_tools.HOME = pathlib.Path({str(home)!r})\n'  # before the demo takes it
        f'import icconv_tools.demo.pipeline as run\n'
        f'run.ensure_miniature = lambda *_: False\n'
        f'sys.argv = ["demo.py", "--data", {str(data)!r}, "--work-dir", {str(tmp_path / "work")!r}]\n'
        f'sys.exit(runpy.run_path({str(HOME / "tools/demo.py")!r})["main"]())'
    )
    demo = subprocess.Popen([sys.executable, '-c', script], stderr=subprocess.PIPE, text=True)
    while not pid.exists():
        assert demo.poll() is None, demo.stderr.read()
        time.sleep(0.1)
    demo.send_signal(signal.SIGTERM)
    _, error = demo.communicate(timeout=30)
    assert demo.returncode == 143 and 'Traceback' not in error
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


@pytest.mark.slow
def test_real_tools(repo, data, tmp_path, monkeypatch):
    """All networks through the real tools for two iterations: far below the thresholds, and reported as such."""
    home = tmp_path / 'home'
    shutil.copytree(repo / 'configs', home / 'configs')
    (home / 'tools').symlink_to(repo / 'tools')
    for name, settings, short in (
        ('_base_/schedules/miniature', r'max_iters = \d+', 'max_iters = 2'),
        ('pose/ae_ic-r18_miniature', r'max_iters, warm_up = \d+, \d+', 'max_iters, warm_up = 2, 1'),
        ('multitask/multitask_ic-r18_fpn_miniature', r'max_iters, warm_up = \d+, \d+', 'max_iters, warm_up = 2, 1'),
    ):
        config = home / f'configs/{name}.py'
        text, replaced = re.subn(settings, short, config.read_text())
        assert replaced == 1, config
        config.write_text(text)
    use_home(monkeypatch, home)
    networks = (MULTITASK, *SEPARATE)
    results, printed = run(data, tmp_path, tasks=[network.name for network in networks])
    report = json.loads((tmp_path / 'work/report.json').read_text())
    assert len(report) == len(results) == sum(len(network.evaluations) + len(network.retests) for network in networks)
    assert all(0 <= row['value'] < (row['threshold'] or 1) for row in report)  # a retest has no threshold
    assert printed.count('(missed)') == sum(len(network.evaluations) for network in networks)
    assert (tmp_path / 'work/demo.jpg').is_file()
    page = (tmp_path / 'work/report.html').read_text()
    for network in networks:
        assert (tmp_path / 'work' / network.name / 'train/last_checkpoint').is_file()
        assert all(evaluations.key in page for evaluations in network.evaluations)
    for curve in ('instance.loss_mask', 'semantic.decode.loss_ce', 'pose.loss_kpt', 'decode.acc_seg'):
        assert curve in page
    assert (tmp_path / 'work/all/labels/000001.png').is_file()
