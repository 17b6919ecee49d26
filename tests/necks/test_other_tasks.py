"""The necks under heads of mmseg and mmpose, which read one map per level."""

import pytest
import torch
from mmengine.registry import MODELS, init_default_scope

from icconv_mm.errors import UserError

CHANNELS = [8, 16, 32, 64]
BACKBONE = {'type': 'icconv_mm.ICResNet', 'depth': 18, 'pattern': 'geometric_d4', 'base_channels': 8}
BACKBONE['out_indices'] = (0, 1, 2, 3)  # in a config of mmpose the last stage alone is the default, as it is there
FPT = {
    'type': 'icconv_mm.FPT',
    'in_channels': CHANNELS,
    'out_channels': 16,
    'norm_cfg': {'type': 'GN', 'num_groups': 4},
}
FPN = {'type': 'FPN', 'in_channels': CHANNELS, 'out_channels': 16, 'num_outs': 4}
NEXT = {'in_channels': 16, 'out_channels': 16, 'num_outs': 4, 'pconv_num': 1}
NECKS = {
    'FPT': [FPT],
    'PConv': [FPN, {'type': 'icconv_mm.PConv', **NEXT}],
    'SEPC': [FPN, {'type': 'icconv_mm.SEPC', **NEXT, 'branches': 'cls', 'lcconv_padding': 1}],
}
ALL = {'in_channels': [16] * 4, 'in_index': [0, 1, 2, 3], 'channels': 8, 'num_classes': 5}
SEGMENTERS = {
    'UPerHead': {**ALL, 'pool_scales': (1, 2)},
    'FPNHead': {**ALL, 'feature_strides': [4, 8, 16, 32]},
    'SegformerHead': ALL,
    'PSPHead': {**ALL, 'in_channels': 16, 'in_index': 0, 'pool_scales': (1, 2)},
}
JOINTS = {'in_channels': 16, 'out_channels': 17}
ESTIMATORS = {
    'HeatmapHead': {**JOINTS, 'deconv_out_channels': None, 'deconv_kernel_sizes': None},
    'SimCCHead': {**JOINTS, 'input_size': (64, 64), 'in_featuremap_size': (16, 16), 'deconv_out_channels': None},
    'RegressionHead': {'in_channels': 16, 'num_joints': 17},
}


def learns(outputs, neck):
    sum(x.square().mean() for x in (outputs if isinstance(outputs, (tuple, list)) else [outputs])).backward()
    return any(p.grad is not None and p.grad.any() for p in neck.parameters())


@pytest.mark.parametrize('neck', NECKS)
@pytest.mark.parametrize('head', SEGMENTERS)
def test_segmentation(head, neck):
    pytest.importorskip('mmseg.models')
    init_default_scope('mmseg')
    auxiliary = {'type': 'FCNHead', 'in_channels': 16, 'in_index': 2, 'channels': 8, 'num_convs': 1, 'num_classes': 5}
    model = {'type': 'EncoderDecoder', 'backbone': BACKBONE, 'neck': NECKS[neck], 'auxiliary_head': auxiliary}
    model['decode_head'] = {'type': head, **SEGMENTERS[head]}
    model = MODELS.build({**model, 'train_cfg': {}, 'test_cfg': {'mode': 'whole'}})
    logits = model(torch.randn(2, 3, 96, 64))
    assert logits.shape == (2, 5, 24, 16) and learns(logits, model.neck)


@pytest.mark.parametrize('neck', NECKS)
@pytest.mark.parametrize('head', ESTIMATORS)
def test_pose_on_the_finest_level(head, neck):
    pytest.importorskip('mmpose.models')
    init_default_scope('mmpose')
    # heads of mmpose read the last of several maps: mmpose's own neck picks one
    necks = [*NECKS[neck], {'type': 'FeatureMapProcessor', 'select_index': 0}]
    if head == 'RegressionHead':
        necks.append({'type': 'GlobalAveragePooling'})
    sequence = {'type': 'icconv_mm.SequenceNeck', 'necks': necks}
    model = {'type': 'TopdownPoseEstimator', 'backbone': BACKBONE, 'neck': sequence}
    model = MODELS.build({**model, 'head': {'type': head, **ESTIMATORS[head]}})
    assert learns(model(torch.randn(2, 3, 64, 64), None), model.neck)


def test_pairs_under_another_head_are_refused():
    pytest.importorskip('mmseg.models')
    init_default_scope('mmseg')
    neck = [FPN, {'type': 'icconv_mm.SEPC', **NEXT, 'lcconv_padding': 1}]
    head = {'type': 'UPerHead', **SEGMENTERS['UPerHead']}
    model = {'type': 'EncoderDecoder', 'backbone': BACKBONE, 'neck': neck, 'decode_head': head}
    model = MODELS.build({**model, 'train_cfg': {}, 'test_cfg': {'mode': 'whole'}})
    with pytest.raises(UserError, match=r"SEPC with branches='both' gives a pair .* branches='cls' or 'reg'"):
        model(torch.randn(2, 3, 64, 64))
