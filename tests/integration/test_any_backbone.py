"""The three steps of the search on networks of other libraries."""

import copy

import pytest
import torch
import torchvision
from torch import nn

from icconv_mm.layers import ICConv2d, to_inception, to_supernet
from icconv_mm.ops import use_backend
from icconv_mm.patterns.search import edo_search


def _mmdet(name: str, **settings) -> nn.Module:
    return getattr(pytest.importorskip('mmdet.models.backbones'), name)(**settings)


def _hrnet() -> nn.Module:
    def stage(branches: int, block: str = 'BASIC') -> dict:
        channels = tuple(8 * 2**i for i in range(branches))
        return {
            'num_modules': 1,
            'num_branches': branches,
            'block': block,
            'num_blocks': (1,) * branches,
            'num_channels': channels,
        }

    return _mmdet('HRNet', extra={f'stage{i}': stage(i, 'BASIC' if i > 1 else 'BOTTLENECK') for i in range(1, 5)})


# builder, filter, number of converted layers
NETWORKS = {
    'torchvision regnet': (torchvision.models.regnet_x_400mf, r'\.b$|\.b\.0$', 22),
    'torchvision mobilenet, depthwise': (torchvision.models.mobilenet_v2, None, 17),
    'mmdet HRNet': (_hrnet, r'branches', 18),
}


def _outputs(network: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    with torch.no_grad():
        outputs = network(x)
    return list(outputs) if isinstance(outputs, (tuple, list)) else [outputs]


@pytest.mark.parametrize('name', NETWORKS)
def test_three_steps(name):
    build, filter, layers = NETWORKS[name]
    network = build()
    network.eval()  # mmdet's do not return themselves
    with torch.no_grad():
        for module in network.modules():  # as after training: every norm does something else
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.uniform_(-0.1, 0.1)
                module.weight.uniform_(0.5, 1.5)
    x = torch.randn(1, 3, 64, 64)
    expected = _outputs(network, x)

    with use_backend('reference'):
        dense = _outputs(to_inception(copy.deepcopy(network), 'dense', filter), x)
    assert all(torch.equal(got, want) for got, want in zip(dense, expected, strict=True))

    supernet = to_supernet(copy.deepcopy(network), 2, filter)
    for got, want in zip(_outputs(supernet, x), expected, strict=True):
        torch.testing.assert_close(got, want, rtol=0, atol=1e-5 * max(1, want.abs().max().item()))

    with torch.no_grad():
        for module in supernet.modules():
            if isinstance(module, nn.Conv2d) and module.kernel_size == (5, 5):
                module.weight += 0.1 * torch.randn_like(module.weight)
    patterns = edo_search(supernet, 2, filter=filter)
    assert len(patterns) == layers
    assert max(pattern.max_dilation for pattern in patterns) == 2
    searched = to_inception(supernet, patterns, filter)
    assert sum(isinstance(module, ICConv2d) for module in searched.modules()) == layers
    assert [got.shape for got in _outputs(searched, x)] == [want.shape for want in expected]
    shapes = {key: value.shape for key, value in network.state_dict().items()}
    assert {key: value.shape for key, value in searched.state_dict().items()} == shapes
