"""mim finds the package, its configs and its tools, and other libraries find its modules; mim itself is run.

These run with openmim; test_mim_routes.py tries either mim in clean environments.
"""

import shutil
import sys
from pathlib import Path

import labelled
import pytest
import torch
from mmengine.config import Config
from workspaces import DETECTION, SEMANTIC, short

from icconv_mm.apis import config_for
from icconv_mm.app.install_openmmlab import installed_here

pytestmark = pytest.mark.slow

MIM = Path(sys.executable).with_name('mim')


@pytest.fixture(scope='module')
def mim(workspace):
    if not MIM.exists() or 'openmim' not in installed_here():  # onedl-mim: test_mim_routes.py
        pytest.skip('mim (openmim) is not installed')
    return lambda *args, **options: workspace.run(MIM, *args, **options)


@pytest.fixture(scope='module')
def segmentor(workspace) -> str:
    """A checkpoint of the miniature segmentor with random weights."""
    from mmengine.registry import init_default_scope
    from mmseg.registry import MODELS

    cfg = Config.fromfile(workspace.config(SEMANTIC))
    init_default_scope('mmseg')
    path = workspace.root / 'segmentor.pth'
    meta = {'dataset_meta': dict(cfg.metainfo)}
    torch.save({'state_dict': MODELS.build(cfg.model).state_dict(), 'meta': meta}, path)
    return str(path)


def test_same_first_losses_as_mmdet(workspace, mim):
    """The config is found by its name alone; mmdet gets it by its path and finds our modules by custom_imports."""
    options = short(2)
    mim('train', 'icconv_mm', Path(DETECTION).name, '--work-dir', 'runs/ours', *options)
    mim('train', 'mmdet', workspace.config(DETECTION), '--work-dir', 'runs/mmdet', *options)
    ours, theirs = workspace.losses('runs/ours'), workspace.losses('runs/mmdet')
    assert sorted(ours) == [1, 2]
    assert ours == theirs


def test_a_config_that_was_written_for_own_images(workspace, mim, tmp_path):
    """mmdet's own script trains it, and the copy that it leaves; each finds its annotations, wherever it lies."""
    cfg = config_for(
        labelled.voc(tmp_path / 'data'), 'detection', 'ic_resnet18', 64, 1, work_dir=tmp_path / 'own', pretrained='none'
    )
    mim('train', 'mmdet', cfg.filename, '--work-dir', 'runs/own_by_mim')
    assert (workspace.root / 'runs/own_by_mim/epoch_1.pth').is_file()
    moved = (workspace.root / 'runs/own_by_mim').rename(tmp_path / 'moved')
    shutil.rmtree(tmp_path / 'own')
    mim('train', 'mmdet', moved / 'own.py', '--work-dir', 'runs/own_again')
    assert (workspace.root / 'runs/own_again/epoch_1.pth').is_file()


def test_testing(workspace, mim, segmentor):
    options = short(1)
    ours = mim('test', 'icconv_mm', Path(SEMANTIC).name, '--checkpoint', segmentor, '--work-dir', 'runs/t1', *options)
    theirs = mim(
        'test', 'mmsegmentation', workspace.config(SEMANTIC), '-C', segmentor, '--work-dir', 'runs/t2', *options
    )
    results = [line for run in (ours, theirs) for line in (run.stdout + run.stderr).splitlines() if 'mIoU:' in line]
    assert len(results) == 2
    values = [line.split('aAcc:')[1].split('data_time')[0].split() for line in results]
    assert values[0] == values[1]
