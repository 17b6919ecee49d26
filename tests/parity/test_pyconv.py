"""PyConvResNet and PyConvHGResNet against tensors computed with the official implementation."""

import copy
import math
import re

import pytest
import torch
from crc_fill import deviations, official_input, official_state_dict
from torch.utils.flop_counter import FlopCounterMode

from icconv_mm.backbones import PyConvHGResNet, PyConvResNet
from icconv_mm.checkpoints import convert

slow = pytest.mark.slow
CASES = [
    'pyconvresnet18',
    pytest.param('pyconvresnet34', marks=slow),
    pytest.param('pyconvresnet50', marks=slow),
    pytest.param('pyconvresnet101', marks=slow),
    pytest.param('pyconvresnet152', marks=slow),
    pytest.param('pyconvhgresnet50', marks=slow),
    pytest.param('pyconvhgresnet101', marks=slow),
    pytest.param('pyconvhgresnet152', marks=slow),
]


def build(case: str):
    kind, depth = re.fullmatch(r'pyconv(hg)?resnet(\d+)', case).groups()
    return (PyConvHGResNet if kind else PyConvResNet)(int(depth))


@pytest.fixture(scope='module', params=CASES)
def case(request, reference):
    """The meta data, the stored tensors, the network in float64, its classifier and its input."""
    stored = reference('pyconv', request.param)
    meta = stored.meta
    state = convert(official_state_dict(meta), 'pyconv')
    classifier = state.pop('head.fc.weight'), state.pop('head.fc.bias')
    net = build(request.param).double().eval()
    assert set(state) == {f'backbone.{key}' for key in net.state_dict()}
    net.load_state_dict(state)
    return meta, stored, net, classifier, official_input(meta)


@torch.no_grad()
def errors(case, dtype: torch.dtype) -> dict[str, float]:
    _, stored, net, classifier, x = case
    maps = copy.deepcopy(net).to(dtype)(x.to(dtype))
    found = {f'c{stage + 2}': feature for stage, feature in enumerate(maps)}
    weight, bias = (t.to(dtype) for t in classifier)
    found['logits'] = torch.nn.functional.linear(maps[-1].mean((2, 3)), weight, bias)
    return deviations(stored, found)


def test_parameters(case):
    meta, _, net, (weight, bias), _ = case
    assert sum(p.numel() for p in net.parameters()) + weight.numel() + bias.numel() == meta['param_count']


def test_norms(case):
    meta, _, net, _, _ = case
    norms = {(m.eps, m.momentum) for m in net.modules() if isinstance(m, torch.nn.BatchNorm2d)}
    assert norms == {tuple(pair) for pair in meta['bn_eps_momentum']}


def test_float64(case):
    assert max(errors(case, torch.float64).values()) < 1e-6


def test_float32(case):
    assert max(errors(case, torch.float32).values()) < 1e-4


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


def test_flops(case):
    """Those that torch counts for the network are those of the official convolutions, at the size of ImageNet."""
    meta, _, net, _, _ = case
    with torch.device('meta'):
        fresh, x = build(meta['case']).eval(), torch.empty(1, 3, 224, 224)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        fresh(x)
    independent = 2 * multiplications(meta['modules'], 224, 224)
    assert counter.get_total_flops() == pytest.approx(independent, rel=0.005)
    assert net.out_channels[-1] == meta['tensors']['c5']['full_shape'][1]
