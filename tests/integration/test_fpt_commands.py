"""What users of FPT do, with the commands of docs/fpt.md, on small data."""

import pickle
import re

import numpy as np
import pytest
import torch
from test_photographs import CONFIG as PHOTOGRAPHS
from workspaces import TINY, short

from icconv_mm.backbones.resnet import ResNet

pytestmark = pytest.mark.slow
pytest.importorskip('mmdet')

CONFIG = 'instance_segmentation/mask-rcnn_ic-r18_fpt_miniature.py'
COARSE = {'train_dataloader.batch_size': 2, 'model.test_cfg.rcnn.score_thr': 0.0}


@pytest.fixture(scope='module')
def trained(workspace) -> str:
    """A checkpoint after two iterations, logged for TensorBoard, with options from the command line."""
    options = {
        **COARSE,
        'model.neck.drop_prob': 0.1,
        'visualizer.vis_backends.0.type': 'TensorboardVisBackend',
    }
    args = ('--work-dir', 'runs/fpt', *short(2, **options))
    assert workspace.tool('train', workspace.config(CONFIG), *args) is None
    return str(workspace.root / 'runs/fpt/iter_2.pth')


def test_options_of_the_command_line_and_tensorboard(workspace, trained):
    written = (workspace.root / 'runs/fpt/mask-rcnn_ic-r18_fpt_miniature.py').read_text()
    assert 'drop_prob=0.1' in written
    events = pytest.importorskip('tensorboard.backend.event_processing.event_accumulator')
    (folder,) = (workspace.root / 'runs/fpt').glob('*/vis_data')
    log = events.EventAccumulator(str(folder))
    log.Reload()
    assert [event.step for event in log.Scalars('loss')] == [1, 2]
    assert all(np.isfinite(event.value) for event in log.Scalars('loss'))


def test_resume_restores_step_count_and_optimizer(workspace, trained):
    """Three steps in one run, and two and one, end with the same weights."""
    args = ('--work-dir', 'runs/fpt_resumed', '--resume', trained, *short(3, **COARSE, **{'model.neck.drop_prob': 0.1}))
    assert workspace.tool('train', workspace.config(CONFIG), *args) is None
    resumed = torch.load(workspace.root / 'runs/fpt_resumed/iter_3.pth', weights_only=True)
    assert resumed['meta']['iter'] == 3
    steps = {float(state['step']) for state in resumed['optimizer']['state'].values()}
    assert steps == {3.0}
    assert list(workspace.losses('runs/fpt_resumed')) == [3]


def test_fine_tuning_with_other_classes(workspace, trained):
    classes = "train_dataloader = dict(dataset=dict(metainfo=dict(_delete_=True, classes=('person', 'ball', 'box'))))"
    config = workspace.derive('fpt_three', CONFIG, classes)
    options = {
        **COARSE,
        'load_from': trained,
        'model.roi_head.bbox_head.num_classes': 3,
        'model.roi_head.mask_head.num_classes': 3,
        'optim_wrapper.optimizer.lr': 0.0,
        'train_cfg.val_begin': 9,
    }
    args = ('--work-dir', 'runs/fpt_tuned', *short(1, **options))
    names = ('--allow-mismatch', 'roi_head.bbox_head', 'roi_head.mask_head')
    assert workspace.tool('train', config, *args, *names) is None
    before = torch.load(trained, weights_only=True)['state_dict']
    after = torch.load(workspace.root / 'runs/fpt_tuned/iter_1.pth', weights_only=True)['state_dict']
    necks = [key for key in before if key.startswith('neck.') and key.endswith('weight')]
    assert necks and all(torch.equal(before[key], after[key]) for key in necks)
    assert after['roi_head.bbox_head.fc_cls.weight'].shape[0] == 4


def test_a_folder_of_pictures_is_drawn(workspace, trained):
    args = ('data/miniature/val', '--out-dir', 'runs/fpt_shown', '--score-thr', 0.0)
    assert workspace.tool('infer', workspace.config(CONFIG), trained, *args) is None
    assert len(list((workspace.root / 'runs/fpt_shown/vis').iterdir())) == TINY.val


def test_detectron_weights_start_a_training(workspace):
    """A pickle of a narrow R-50-GN, converted by the tool, is what the first step starts from."""
    net = ResNet(50, base_channels=8, norm_cfg={'type': 'GN', 'num_groups': 4})
    blobs = {}
    for key, value in net.state_dict().items():
        match = re.fullmatch(r'layer(\d)\.(\d+)\.(conv|gn|downsample\.)(\d)\.(weight|bias)', key)
        value = torch.randn_like(value) * 0.05
        if match is None:
            kind, _, name = key.partition('.')
            blobs['conv1_w' if kind == 'conv1' else f'conv1_gn_{"s" if name == "weight" else "b"}'] = value.numpy()
            continue
        stage, block, kind, index, name = match.groups()
        branch = '1' if kind == 'downsample.' else '2' + ' abc'[int(index)]
        is_conv = kind == 'conv' or (kind == 'downsample.' and index == '0')
        what = 'w' if is_conv else f'gn_{"s" if name == "weight" else "b"}'
        blobs[f'res{int(stage) + 1}_{block}_branch{branch}_{what}'] = value.numpy()
    path = workspace.root / 'R-50-GN.pkl'
    path.write_bytes(pickle.dumps({'blobs': blobs}, protocol=2))
    out = workspace.root / 'checkpoints/narrow_gn.pth'
    assert workspace.tool('convert_checkpoint', path, out, '--source', 'detectron') in (None, 0)

    config = workspace.derive(
        'fpt_detectron',
        CONFIG,
        f"""
norm_cfg = dict(type='GN', num_groups=4)
init_cfg = dict(type='Pretrained', checkpoint={str(out)!r}, prefix='backbone.')
model = dict(
    backbone=dict(_delete_=True, type='icconv_mm.ICResNet', depth=50, base_channels=8, pattern='dense',
                  norm_cfg=norm_cfg, init_cfg=init_cfg),
    neck=dict(in_channels=[32, 64, 128, 256]))
""",
    )
    options = {**COARSE, 'optim_wrapper.optimizer.lr': 0.0, 'train_cfg.val_begin': 9}
    assert workspace.tool('train', config, '--work-dir', 'runs/fpt_detectron', *short(1, **options)) is None
    state = torch.load(workspace.root / 'runs/fpt_detectron/iter_1.pth', weights_only=True)['state_dict']
    np.testing.assert_array_equal(state['backbone.layer4.2.conv2.weight'].numpy(), blobs['res5_2_branch2b_w'])
    np.testing.assert_array_equal(state['backbone.gn1.weight'].numpy(), blobs['conv1_gn_s'])


def test_learns_photographs(workspace, coco_sample):
    """On four photographs of COCO with their polygons the loss halves within 40 steps."""
    config = workspace.derive('fpt_photographs', CONFIG, PHOTOGRAPHS.format(root=str(coco_sample)))
    args = ('--work-dir', 'runs/fpt_photographs', *short(40, **{'train_cfg.val_begin': 99}))
    assert workspace.tool('train', config, *args) is None
    losses = list(workspace.losses('runs/fpt_photographs').values())
    assert len(losses) == 40
    assert np.mean(losses[-5:]) <= 0.5 * np.mean(losses[:5])
