"""Tools that count a network's operations, as papers quote them: those of the dense network."""

import pytest
import torch
import torchvision

import icconv_mm
from icconv_mm.layers import ICConv2d

IMAGE = (3, 64, 64)


def network(name):
    pattern = {'pattern': 'geometric_d4'} if name.startswith('ic_') else {}
    return icconv_mm.create_model(name, **pattern).eval()


@pytest.mark.parametrize('name', ['ic_resnet18', 'pyconv_resnet18'])
def test_torchinfo(name):
    summary = pytest.importorskip('torchinfo').summary
    net = network(name)
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counted:
        net(torch.randn(1, *IMAGE))
    others = 2 * sum(p.numel() for key, p in net.named_parameters() if p.ndim == 1)  # norms, which torch does not count
    flops = 2 * summary(net, (1, *IMAGE), verbose=0).total_mult_adds
    assert 0 <= flops - counted.get_total_flops() <= others
    if name == 'ic_resnet18':
        assert flops == 2 * summary(torchvision.models.resnet18(), (1, *IMAGE), verbose=0).total_mult_adds


def test_ptflops():
    """It knows layers by their very class: an inception convolution is to be named."""
    ptflops = pytest.importorskip('ptflops')
    from ptflops.pytorch_ops import conv_flops_counter_hook

    settings = dict(as_strings=False, print_per_layer_stat=False, backend='pytorch')
    named = {'custom_modules_hooks': {ICConv2d: conv_flops_counter_hook}}
    count, _ = ptflops.get_model_complexity_info(network('ic_resnet18'), IMAGE, **settings, **named)
    expected, _ = ptflops.get_model_complexity_info(torchvision.models.resnet18(), IMAGE, **settings)
    assert count == pytest.approx(expected, rel=0.01)
