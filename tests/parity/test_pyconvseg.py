"""PyConvSegNet (backbone, PyConvHead, auxiliary head) against tensors computed with the official implementation."""

import copy

import pytest
import torch
import torch.nn.functional as F
from crc_fill import deviations, official_input, official_state_dict
from torch import nn

from icconv_mm.checkpoints import convert
from icconv_mm.registry import MODELS

pytest.importorskip('mmseg')
pytestmark = pytest.mark.slow
CASES = [
    f'pyconvsegnet50_{net}_os{stride}' for net in ('pyconvresnet', 'pyconvhgresnet', 'resnet') for stride in (8, 16)
]
BACKBONES = {
    'pyconvresnet': {'type': 'icconv_mm.PyConvResNet', 'depth': 50},
    'pyconvhgresnet': {'type': 'icconv_mm.PyConvHGResNet', 'depth': 50},
    'resnet': {'type': 'icconv_mm.ICResNet', 'depth': 50, 'pattern': 'dense'},
}


def build(backbone: str, output_stride: int, classes: int) -> nn.Module:
    settings = dict(num_classes=classes, norm_cfg=dict(type='BN'), align_corners=True, dropout_ratio=0.1)
    net = nn.Module()
    net.backbone = MODELS.build(BACKBONES[backbone] | {'output_stride': output_stride})
    net.decode_head = MODELS.build(dict(type='icconv_mm.PyConvHead', in_channels=2048, in_index=3, **settings))
    net.auxiliary_head = MODELS.build(
        dict(
            type='mmseg.FCNHead',
            in_channels=1024,
            in_index=2,
            channels=256,
            num_convs=1,
            concat_input=False,
            **settings,
        )
    )
    return net.double().eval()


@pytest.fixture(scope='module', params=CASES)
def case(request, reference):
    """The meta data, the stored tensors, the network in float64 and its input."""
    stored = reference('pyconvseg', request.param)
    meta = stored.meta
    arguments = meta['constructor']['kwargs']
    net = build(arguments['backbone_net'], arguments['backbone_output_stride'], arguments['classes'])
    state = convert(official_state_dict(meta), 'pyconvsegnet')
    assert set(state) == set(net.state_dict())
    net.load_state_dict(state)
    return meta, stored, net, official_input(meta)


@torch.no_grad()
def errors(case, dtype: torch.dtype) -> dict[str, float]:
    _, stored, net, x = case
    net, x = copy.deepcopy(net).to(dtype), x.to(dtype)
    head = net.decode_head
    maps = net.backbone(x)
    found = {f'c{stage + 2}': feature for stage, feature in enumerate(maps)}
    found['layer0'] = net.backbone.stem_forward(x)
    found['head_local'] = head.local_context(maps[-1])
    found['head_global_9x9'] = head.global_context(F.adaptive_avg_pool2d(maps[-1], 9))
    found['head_global'] = F.interpolate(
        found['head_global_9x9'], maps[-1].shape[2:], mode='bilinear', align_corners=True
    )
    found['head_merged'] = head.features(maps[-1])
    found['logits_lowres'] = head(maps)
    found['aux_logits_lowres'] = net.auxiliary_head(maps)
    for name, zoom in (('logits_zoom2', 2), ('logits_zoom4', 4), ('logits', 8)):
        # mmseg enlarges the logits to the size that the meta data of the image tell
        size = tuple((side - 1) // 8 * zoom + 1 for side in x.shape[2:])
        found[name] = head.predict_by_feat(found['logits_lowres'], [{'img_shape': size}])
    assert size == x.shape[2:]
    return deviations(stored, found)


def test_parameters(case):
    meta, _, net, _ = case
    assert sum(p.numel() for p in net.parameters()) == meta['param_count']


def test_float64(case):
    assert max(errors(case, torch.float64).values()) < 1e-6


def test_float32(case):
    assert max(errors(case, torch.float32).values()) < 1e-4
