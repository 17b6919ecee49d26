"""ICResNet against tensors computed with the official implementation (tests/data/README.md)."""

import copy
import re

import pytest
import torch
from crc_fill import deviations, official_input, official_state_dict
from reference import pattern_of

from icconv_mm.backbones import ICResNet
from icconv_mm.ops import use_backend

CASES = [
    'ic_resnet18_selfmade',
    pytest.param('ic_resnet34_selfmade', marks=pytest.mark.slow),
    'ic_resnet50_selfmade',
    pytest.param('ic_resnet50_detection_k9', marks=pytest.mark.slow),
    'ic_resnet50_detection_k9_logits224',
    'ic_resnet50_human_pose_k13',
    'ic_resnet50_segmentation_k9',
    pytest.param('ic_resnet101_detection_k9', marks=pytest.mark.slow),
    pytest.param('ic_resnet101_human_pose_k13', marks=pytest.mark.slow),
]


def concatenated(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """One weight per inception convolution instead of one per run, which the official keys number."""
    pieces: dict[str, list] = {}
    for key, value in state.items():
        match = re.fullmatch(r'(.*)\.conv_list\.(\d+)\.weight', key)
        name, position = (f'{match[1]}.weight', int(match[2])) if match else (key, 0)
        pieces.setdefault(name, []).append((position, value))
    return {
        name: torch.cat([value for _, value in sorted(found, key=lambda item: item[0])])
        if len(found) > 1
        else found[0][1]
        for name, found in pieces.items()
    }


@pytest.fixture(scope='module', params=CASES)
def case(request, reference):
    """The meta data, the stored tensors, the network in float64 and its input."""
    path = pattern_of(request, request.param)  # first: what belongs to a published pattern is not in the repository
    stored = reference('icconv', request.param)
    meta = stored.meta
    net = ICResNet(int(re.search(r'resnet(\d+)', request.param)[1]), str(path)).double().eval()
    state = concatenated(official_state_dict(meta))
    classifier = state['fc.weight'], state['fc.bias']
    net.load_state_dict(state)
    return meta, stored, net, classifier, official_input(meta)


@torch.no_grad()
def errors(case, dtype: torch.dtype) -> dict[str, float]:
    """Largest deviation of every stored tensor, relative to its maximum."""
    _, stored, net, classifier, x = case
    maps = copy.deepcopy(net).to(dtype)(x.to(dtype))
    found = {f'c{stage + 2}': feature for stage, feature in enumerate(maps)}
    weight, bias = (t.to(dtype) for t in classifier)
    found['logits'] = torch.nn.functional.linear(maps[-1].mean((2, 3)), weight, bias)
    return deviations(stored, found)


def test_parameters(case):
    meta, _, net, (weight, bias), _ = case
    assert sum(p.numel() for p in net.parameters()) + weight.numel() + bias.numel() == meta['param_count']


def test_float64(case):
    assert max(errors(case, torch.float64).values()) < 1e-6


@pytest.mark.parametrize('backend', ['reference', 'auto'])
def test_float32(case, backend):
    with use_backend(backend):
        assert max(errors(case, torch.float32).values()) < 1e-4
