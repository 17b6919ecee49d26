import pytest
import torch
from torch import nn

from icconv_mm.backbones import ICResNet
from icconv_mm.layers import ICConv2d
from icconv_mm.patterns.receptive_field import effective_receptive_field, randomize


class OneConvolution(nn.Module):
    def __init__(self, pattern):
        super().__init__()
        self.conv = ICConv2d(3, sum(run[0] for run in pattern), pattern)

    def forward(self, x):
        return (x, self.conv(x))


def test_one_convolution_looks_where_its_taps_are():
    field = effective_receptive_field(OneConvolution([(4, 2, 3)]), size=15, images=2)
    assert field.share.sum().item() == pytest.approx(1)
    seen = field.share.nonzero().tolist()
    assert seen == [[7 + 2 * a, 7 + 3 * b] for a in (-1, 0, 1) for b in (-1, 0, 1)]


def test_extents_are_root_mean_square_distances():
    net = OneConvolution([(1, 2, 3)])
    with torch.no_grad():
        net.conv.weight.zero_()
        net.conv.weight[..., 0, 1] = net.conv.weight[..., 2, 1] = 1  # up and down, two pixels away
    field = effective_receptive_field(net, size=15)
    assert field.extent_h == pytest.approx(2) and field.extent_w == pytest.approx(0)


def test_a_dilated_network_looks_farther():
    dense, dilated = (ICResNet(18, pattern, base_channels=8) for pattern in ('dense', 'geometric_d4'))
    randomize(dilated, size=64)
    dense.load_state_dict(dilated.state_dict())
    fields = [effective_receptive_field(net, size=193, images=1, stage=1) for net in (dense, dilated)]
    assert fields[1].extent_h > 1.3 * fields[0].extent_h
    assert fields[1].extent_w > 1.3 * fields[0].extent_w


def test_the_network_is_left_as_it_was():
    net = ICResNet(18, 'geometric_d2', base_channels=8, frozen_stages=1).train()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    learning = [p.requires_grad for p in net.parameters()]
    first = effective_receptive_field(net, size=33, images=1)
    assert net.training and [p.requires_grad for p in net.parameters()] == learning
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())
    assert torch.equal(first.share, effective_receptive_field(net, size=33, images=1).share)  # the same seed


def test_random_weights_keep_activations_in_range():
    net = randomize(ICResNet(50, 'geometric_d2', base_channels=8), size=64)
    assert not net.training
    std = net(torch.randn(2, 3, 64, 64))[-1].std().item()
    assert 0.1 < std < 10
    other = randomize(ICResNet(50, 'geometric_d2', base_channels=8), size=64)
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), other.parameters()))
