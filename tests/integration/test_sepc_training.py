"""SEPC through the real tools: FSAF in mixed precision, FreeAnchor."""

import numpy as np
import pytest
from workspaces import short

from icconv_mm.checkpoints import read

pytestmark = pytest.mark.slow

SEPC = 'detection/retinanet_ic-r18_fpn-sepc_miniature.py'
NECK = """
neck = [
    dict(type='FPN', in_channels=[64, 128, 256, 512], out_channels=32, num_outs=4, norm_cfg=dict(type='BN')),
    dict(type='icconv_mm.SEPC', in_channels=32, out_channels=32, num_outs=4, pconv_deform=True, lcconv_deform=True,
         ibn=True, lcconv_padding=1, start_level=2)]
"""
HEAD = """
head = dict(
    _delete_=True, type='icconv_mm.SplitFeatureHead', head_type={head!r}, num_classes=6, in_channels=32,
    feat_channels=32, stacked_convs=0, **{options})
"""
FSAF = {
    'bbox_coder': {'type': 'TBLRBBoxCoder', 'normalizer': 4.0},
    'reg_decoded_bbox': True,
    'anchor_generator': {
        'type': 'AnchorGenerator',
        'octave_base_scale': 1,
        'scales_per_octave': 1,
        'ratios': [1.0],
        'strides': [4, 8, 16, 32],
    },
    'loss_cls': {'type': 'FocalLoss', 'use_sigmoid': True, 'reduction': 'none'},
    'loss_bbox': {'type': 'IoULoss', 'eps': 1e-6, 'reduction': 'none'},
}
FREE_ANCHOR = {
    'bbox_coder': {'type': 'DeltaXYWHBBoxCoder', 'target_stds': [0.1, 0.1, 0.2, 0.2]},
    'anchor_generator': {
        'type': 'AnchorGenerator',
        'octave_base_scale': 4,
        'scales_per_octave': 3,
        'ratios': [0.5, 1.0, 2.0],
        'strides': [4, 8, 16, 32],
    },
    'loss_bbox': {'type': 'SmoothL1Loss', 'beta': 0.11, 'loss_weight': 0.75},
}
HEADS = {
    'FSAFHead': (
        FSAF,
        "model = dict(type='FSAF', neck=neck, bbox_head=head, train_cfg=dict(assigner=dict(_delete_=True,"
        " type='CenterRegionAssigner', pos_scale=0.2, neg_scale=0.2, min_pos_iof=0.01)))",
    ),
    'FreeAnchorRetinaHead': (FREE_ANCHOR, 'model = dict(neck=neck, bbox_head=head)'),
}


@pytest.mark.parametrize(('head', 'precision'), [('FSAFHead', 'bfloat16'), ('FreeAnchorRetinaHead', 'float32')])
def test_other_heads_train_without_nan(workspace, head, precision):
    options, model = HEADS[head]
    text = NECK + HEAD.format(head=head, options=options) + model
    config = workspace.derive(f'sepc_{head}', SEPC, text)
    name = f'runs/sepc_{head}_{precision}'
    amp = ['--amp'] if precision == 'bfloat16' else []
    assert workspace.tool('train', config, '--work-dir', name, *amp, *short(20)) is None
    losses = list(workspace.losses(name).values())
    assert len(losses) == 20 and np.isfinite(losses).all()
    assert np.mean(losses[-5:]) < np.mean(losses[:5])
    weights = read(workspace.root / name / 'iter_20.pth')['state_dict']
    assert all(value.isfinite().all() for value in weights.values())
    assert any(value.any() for key, value in weights.items() if 'conv_offset' in key)  # offsets have left zero
