"""Networks with converted weights against tensors that the official implementations computed (tests/data/README.md).

ICResNet, PyConvResNet and PyConvHGResNet as classifiers; PyConvSegNet: backbone, PyConvHead, auxiliary head.
"""

import copy
import math
import re

import pytest
import torch
import torch.nn.functional as F
from crc_fill import deviations, official_input, official_state_dict
from reference import pattern_of
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from icconv_mm.backbones import ICResNet, PyConvHGResNet, PyConvResNet
from icconv_mm.checkpoints.convert import run_conversion
from icconv_mm.ops import use_backend
from icconv_mm.registry import MODELS

FAST = {
    'icconv': [
        'ic_resnet18_selfmade',
        'ic_resnet50_selfmade',
        'ic_resnet50_detection_k9_logits224',
        'ic_resnet50_human_pose_k13',
        'ic_resnet50_segmentation_k9',
    ],
    'pyconv': ['pyconvresnet18'],
}
SLOW = {
    'icconv': [
        'ic_resnet34_selfmade',
        'ic_resnet50_detection_k9',
        'ic_resnet101_detection_k9',
        'ic_resnet101_human_pose_k13',
    ],
    'pyconv': [
        *('pyconvresnet34', 'pyconvresnet50', 'pyconvresnet101', 'pyconvresnet152'),
        *('pyconvhgresnet50', 'pyconvhgresnet101', 'pyconvhgresnet152'),
    ],
    'pyconvseg': [
        f'pyconvsegnet50_{net}_os{stride}' for net in ('pyconvresnet', 'pyconvhgresnet', 'resnet') for stride in (8, 16)
    ],
}
SOURCES = {'icconv': 'ic-conv', 'pyconv': 'pyconv', 'pyconvseg': 'pyconvsegnet'}
BACKBONES = {
    'pyconvresnet': {'type': 'icconv_mm.PyConvResNet', 'depth': 50},
    'pyconvhgresnet': {'type': 'icconv_mm.PyConvHGResNet', 'depth': 50},
    'resnet': {'type': 'icconv_mm.ICResNet', 'depth': 50, 'pattern': 'dense'},
}


def cases(*families):
    fast = [(family, name) for family in families for name in FAST.get(family, [])]
    slow = [(family, name) for family in families for name in SLOW[family]]
    return [
        *(pytest.param(case, id=case[1]) for case in fast),
        *(pytest.param(case, id=case[1], marks=pytest.mark.slow) for case in slow),
    ]


class Classifier(nn.Module):
    def __init__(self, backbone: nn.Module):
        super().__init__()
        self.backbone, self.head = backbone, nn.Module()
        self.head.fc = nn.Linear(backbone.out_channels[-1], 1000)

    def named_maps(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        maps = self.backbone(x)
        named = {f'c{stage + 2}': feature for stage, feature in enumerate(maps)}
        return named | {'logits': self.head.fc(maps[-1].mean((2, 3)))}


class Segmentor(nn.Module):
    def __init__(self, backbone_net: str, backbone_output_stride: int, classes: int, **_):
        super().__init__()
        settings = dict(num_classes=classes, norm_cfg=dict(type='BN'), align_corners=True, dropout_ratio=0.1)
        self.backbone = MODELS.build(BACKBONES[backbone_net] | {'output_stride': backbone_output_stride})
        self.decode_head = MODELS.build(dict(type='icconv_mm.PyConvHead', in_channels=2048, in_index=3, **settings))
        auxiliary = dict(in_channels=1024, in_index=2, channels=256, num_convs=1, concat_input=False, **settings)
        self.auxiliary_head = MODELS.build(dict(type='mmseg.FCNHead', **auxiliary))

    def named_maps(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        head, maps = self.decode_head, self.backbone(x)
        named = {f'c{stage + 2}': feature for stage, feature in enumerate(maps)}
        named['layer0'] = self.backbone.stem_forward(x)
        named['head_local'] = head.local_context(maps[-1])
        named['head_global_9x9'] = head.global_context(F.adaptive_avg_pool2d(maps[-1], 9))
        named['head_global'] = F.interpolate(
            named['head_global_9x9'], maps[-1].shape[2:], mode='bilinear', align_corners=True
        )
        named['head_merged'] = head.features(maps[-1])
        named['logits_lowres'] = head(maps)
        named['aux_logits_lowres'] = self.auxiliary_head(maps)
        for name, zoom in (('logits_zoom2', 2), ('logits_zoom4', 4), ('logits', 8)):
            # mmseg enlarges the logits to the size that the meta data of the image tell
            size = tuple((side - 1) // 8 * zoom + 1 for side in x.shape[2:])
            named[name] = head.predict_by_feat(named['logits_lowres'], [{'img_shape': size}])
        assert size == x.shape[2:]
        return named


def pyconv_backbone(case: str) -> nn.Module:
    kind, depth = re.fullmatch(r'pyconv(hg)?resnet(\d+)', case).groups()
    return (PyConvHGResNet if kind else PyConvResNet)(int(depth))


@pytest.fixture(scope='module')
def case(request, reference):
    """The meta data, the stored tensors, the network in float64 and its input."""
    family, name = request.param
    if family == 'icconv':  # first: what belongs to a published pattern is not in the repository
        path = str(pattern_of(request, name))
    elif family == 'pyconvseg':
        pytest.importorskip('mmseg')
    stored = reference(family, name)
    meta = stored.meta
    if family == 'icconv':
        net = Classifier(ICResNet(int(re.search(r'resnet(\d+)', name)[1]), path))
    else:
        net = Classifier(pyconv_backbone(name)) if family == 'pyconv' else Segmentor(**meta['constructor']['kwargs'])
    options = {'pattern': path} if family == 'icconv' else {}
    conversion = run_conversion(official_state_dict(meta), SOURCES[family], **options)
    assert conversion.layout == ('PyConvSegNet' if family == 'pyconvseg' else 'classifier')
    net = net.double().eval()
    net.load_state_dict(conversion.state_dict)
    return meta, stored, net, official_input(meta)


every_case = pytest.mark.parametrize('case', cases('icconv', 'pyconv', 'pyconvseg'), indirect=True)


@torch.no_grad()
def largest_error(case, dtype: torch.dtype) -> float:
    """Of every stored tensor, relative to its maximum."""
    _, stored, net, x = case
    return max(deviations(stored, copy.deepcopy(net).to(dtype).named_maps(x.to(dtype))).values())


@every_case
def test_parameters(case):
    meta, _, net, _ = case
    assert sum(p.numel() for p in net.parameters()) == meta['param_count']
    norms = {(m.eps, m.momentum) for m in net.modules() if isinstance(m, nn.BatchNorm2d)}
    assert norms == {tuple(pair) for pair in meta['bn_eps_momentum']}


@every_case
def test_float64(case):
    assert largest_error(case, torch.float64) < 1e-6


@every_case
def test_float32(case):
    assert largest_error(case, torch.float32) < 1e-4


@pytest.mark.parametrize('case', cases('icconv'), indirect=True)
def test_float32_of_the_reference(case):
    with use_backend('reference'):
        assert largest_error(case, torch.float32) < 1e-4


def multiplications(modules: dict, height: int, width: int) -> int:
    """Of the convolutions of an official network, from the sizes in its description and nothing else.

    The size changes at a convolution with a stride; the levels of a pyramid read one map.
    """
    total, size, pyramid_size = 0, (height, width), {}
    for name, info in modules.items():
        if info['type'] != 'Conv2d':
            continue
        pyramid, _, level = name.partition('.conv2_')
        read = pyramid_size.setdefault(pyramid, size) if level else size
        if (
            '.downsample.' not in name
        ):  # behind its pooling the shortcut has the size of the other branch, already known
            size = tuple(-(-side // info['stride'][0]) for side in read)
        filters = info['out'] * info['in'] // info['groups'] * math.prod(info['kernel'])
        total += math.prod(size) * filters
    return total


@pytest.mark.parametrize('case', cases('pyconv'), indirect=True)
def test_flops(case):
    """Those that torch counts for the network are those of the official convolutions, at the size of ImageNet."""
    meta, _, net, _ = case
    with torch.device('meta'):
        fresh, x = pyconv_backbone(meta['case']).eval(), torch.empty(1, 3, 224, 224)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        fresh(x)
    independent = 2 * multiplications(meta['modules'], 224, 224)
    assert counter.get_total_flops() == pytest.approx(independent, rel=0.005)
    assert net.backbone.out_channels[-1] == meta['tensors']['c5']['full_shape'][1]
