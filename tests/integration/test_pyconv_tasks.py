"""PyConv through the tools: segmentation by sliding window and at several scales, pretraining and its resumption."""

import json

import cv2
import numpy as np
import pytest
import torch
from workspaces import short

pytestmark = pytest.mark.slow

SEGMENTER = 'semantic_segmentation/pyconvsegnet_pyconv-r18_miniature.py'
# A window smaller than the images of 128 pixels, and three scales, each with its flipped image.
WINDOWS = """
model = dict(test_cfg=dict(mode='slide', crop_size=(96, 96), stride=(64, 64)))
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='TestTimeAug', transforms=[
        [dict(type='Resize', scale_factor=r, keep_ratio=True) for r in (1.0, 1.5, 2.0)],
        [dict(type='RandomFlip', prob=0.), dict(type='RandomFlip', prob=1.)],
        [dict(type='LoadAnnotations')],
        [dict(type='PackSegInputs')]])]
"""
RECIPE = 'pyconv-resnet50_8xb128-cutmix-300e_in1k'
# A few generated images in folders by class instead of ImageNet, and the smallest network.
PRETRAINING = """
model = dict(backbone=dict(depth=18), head=dict(num_classes=2, in_channels=512))
data_preprocessor = dict(num_classes=2)
dataset = dict(_delete_=True, type='CustomDataset', data_root='data/classes', pipeline=_base_.train_pipeline)
train_dataloader = dict(dataset=dataset, batch_size=2, num_workers=0, persistent_workers=False)
dataset = dict(_delete_=True, type='CustomDataset', data_root='data/classes', pipeline=_base_.test_pipeline)
val_dataloader = dict(dataset=dataset, batch_size=4, num_workers=0, persistent_workers=False)
test_dataloader = val_dataloader
val_evaluator = dict(topk=(1,))
test_evaluator = val_evaluator
default_hooks = dict(logger=dict(interval=1))
"""


def values(workspace, folder):
    """The metrics of the latest test in a work folder."""
    files = sorted((workspace.root / folder).glob('*/*.json'), key=lambda file: file.stat().st_mtime)
    return json.loads(files[-1].read_text())


def test_segmentor_by_windows_and_at_scales(workspace):
    pytest.importorskip('mmseg')
    config = workspace.derive('windows', SEGMENTER, WINDOWS)
    assert workspace.tool('train', config, '--work-dir', 'runs/windows', *short(2)) is None
    checkpoint = workspace.root / 'runs/windows/iter_2.pth'
    for options in ((), ('--tta',)):
        assert workspace.tool('test', config, checkpoint, '--work-dir', 'runs/windows', *options, *short(2)) is None
        assert 0 <= values(workspace, 'runs/windows')['mIoU'] <= 100


@pytest.fixture(scope='module')
def classes(workspace):
    """Two images of either of two classes."""
    for i in range(4):
        folder = workspace.root / 'data/classes' / 'ab'[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / f'{i}.png'), np.random.RandomState(i).randint(0, 255, (260, 240, 3), np.uint8))


def test_pretraining_runs_and_resumes(workspace, classes):
    """Two iterations, then two more from the checkpoint; tested at 224 and at 320 pixels."""
    pytest.importorskip('mmpretrain')
    config = workspace.derive('pretraining', f'classification/{RECIPE}.py', PRETRAINING)
    folder = 'runs/pretraining'
    for epochs, resume in ((1, ()), (2, ('--resume',))):
        options = ('--cfg-options', f'train_cfg.max_epochs={epochs}')
        assert workspace.tool('train', config, '--work-dir', folder, '--amp', *resume, *options) is None
        losses = workspace.losses(folder)
        assert list(losses) == [2 * epochs - 1, 2 * epochs]  # of this run, counted on
        assert np.isfinite(list(losses.values())).all()
    checkpoint = torch.load(workspace.root / folder / 'epoch_2.pth', weights_only=False)
    assert checkpoint['meta']['iter'] == 4 and 'head.fc.weight' in checkpoint['state_dict']
    larger = ('test_dataloader.dataset.pipeline.1.scale=366', 'test_dataloader.dataset.pipeline.2.crop_size=320')
    for options in ((), ('--cfg-options', *larger)):
        file = workspace.root / folder / 'epoch_2.pth'
        assert workspace.tool('test', config, file, '--work-dir', folder, *options) is None
        assert 0 <= values(workspace, folder)['accuracy/top1'] <= 100
