"""FPT from weights of Detectron, with the commands of docs/fpt.md, on small data."""

import pickle

import numpy as np
import pytest
import torch
from layouts import detectron_blobs
from workspaces import short

from icconv_mm.backbones.resnet import ResNet
from icconv_mm.checkpoints import load

pytestmark = pytest.mark.slow
pytest.importorskip('mmdet')

CONFIG = 'instance_segmentation/mask-rcnn_ic-r18_fpt_miniature.py'
COARSE = {'train_dataloader.batch_size': 2, 'model.test_cfg.rcnn.score_thr': 0.0}


def test_detectron_weights_start_a_training(workspace):
    """A pickle of a narrow R-50-GN, converted by the tool, is what the first step starts from."""
    net = ResNet(50, base_channels=8, norm_cfg={'type': 'GN', 'num_groups': 4})
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    blobs = detectron_blobs(net, 'gn')
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
    state = load(workspace.root / 'runs/fpt_detectron/iter_1.pth')['state_dict']
    np.testing.assert_array_equal(state['backbone.layer4.2.conv2.weight'].numpy(), blobs['res5_2_branch2b_w'])
    np.testing.assert_array_equal(state['backbone.gn1.weight'].numpy(), blobs['conv1_gn_s'])
