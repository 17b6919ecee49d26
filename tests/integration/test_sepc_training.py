"""SEPC through the real tools: RetinaNet on photographs, FSAF in mixed precision, FreeAnchor."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from workspaces import short

from icconv_mm.checkpoints import load

pytestmark = pytest.mark.slow

SEPC = 'detection/retinanet_ic-r18_fpn-sepc_miniature.py'
NECK = """
neck = [
    dict(type='FPN', in_channels={channels}, out_channels=32, num_outs=4, norm_cfg=dict(type='BN')),
    dict(type='icconv_mm.SEPC', in_channels=32, out_channels=32, num_outs=4, pconv_deform={full}, lcconv_deform=True,
         ibn=True, lcconv_padding=1, start_level=2)]
"""
HEAD = """
head = dict(
    _delete_=True, type='icconv_mm.SplitFeatureHead', head_type={head!r}, num_classes=6, in_channels=32,
    feat_channels=32, stacked_convs=0, **{options})
"""
MIM = Path(sys.executable).with_name('mim')
RESNET18, RESNET50 = [64, 128, 256, 512], [256, 512, 1024, 2048]

ITERATIONS = 30
PHOTOGRAPHS = """
data_root = {root!r}
size = dict(type='Resize', scale=(128, 128), keep_ratio=True)
load = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True)]
keys = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')
dataset = dict(
    ann_file='annotations/person_keypoints_sample.json', data_prefix=dict(img='val2017/'), data_root=data_root,
    metainfo=dict(_delete_=True, classes=('person',), palette=[(220, 20, 60)]))
model = dict(
    backbone=dict(depth=50), neck=neck, bbox_head=dict(num_classes=1, in_channels=32, feat_channels=32))
train_dataloader = dict(batch_size=4, dataset=dict(**dataset, pipeline=[*load, size, dict(type='PackDetInputs')]))
val_dataloader = dict(
    batch_size=4,
    dataset=dict(**dataset, pipeline=[load[0], size, load[1], dict(type='PackDetInputs', meta_keys=keys)]))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + '/annotations/person_keypoints_sample.json')
test_evaluator = val_evaluator
param_scheduler = []
"""


def test_retinanet_with_ic_resnet50_overfits_photographs(workspace, coco_sample):
    """The loss halves, and ``mim test`` evaluates the checkpoint."""
    text = NECK.format(channels=RESNET50, full=True) + PHOTOGRAPHS.format(root=str(coco_sample))
    config = workspace.derive('sepc_photographs', SEPC, text)
    folder = workspace.root / 'runs/sepc_photographs'
    assert workspace.tool('train', config, '--work-dir', folder, *short(ITERATIONS)) is None
    losses = list(workspace.losses('runs/sepc_photographs').values())
    assert len(losses) == ITERATIONS and np.isfinite(losses).all()
    assert np.mean(losses[-5:]) <= 0.5 * np.mean(losses[:3])

    checkpoint, tested = folder / f'iter_{ITERATIONS}.pth', workspace.root / 'runs/sepc_tested'
    predictions = ('test_evaluator.outfile_prefix', str(tested / 'results'))
    options = ('--work-dir', tested, *short(1), '='.join(predictions))
    done = workspace.run(MIM, 'test', 'icconv_mm', config, '--checkpoint', checkpoint, *options)
    assert 'coco/bbox_mAP' in done.stdout + done.stderr
    boxes = json.loads((tested / 'results.bbox.json').read_text())
    assert {box['category_id'] for box in boxes} == {1}


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
    text = NECK.format(channels=RESNET18, full=True) + HEAD.format(head=head, options=options) + model
    config = workspace.derive(f'sepc_{head}', SEPC, text)
    name = f'runs/sepc_{head}_{precision}'
    amp = ['--amp'] if precision == 'bfloat16' else []
    assert workspace.tool('train', config, '--work-dir', name, *amp, *short(20)) is None
    losses = list(workspace.losses(name).values())
    assert len(losses) == 20 and np.isfinite(losses).all()
    assert np.mean(losses[-5:]) < np.mean(losses[:5])
    weights = load(workspace.root / name / 'iter_20.pth')['state_dict']
    assert all(value.isfinite().all() for value in weights.values())
    assert any(value.any() for key, value in weights.items() if 'conv_offset' in key)  # offsets have left zero
