"""Supernet kernels: where taps lie, and which convolutions are supernet layers."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from icconv_mm.patterns.supernet import candidates, embed_taps, keep_taps, select_convs, select_kernels, tap_indices


def test_candidates_are_all_dilations_smallest_first():
    assert candidates(2).tolist() == [[1, 1], [1, 2], [2, 1], [2, 2]]
    assert candidates(3).tolist() == [[1, 1], [1, 2], [2, 1], [1, 3], [2, 2], [3, 1], [2, 3], [3, 2], [3, 3]]
    with pytest.raises(ValueError, match='d_max must be a positive integer, got 0'):
        candidates(0)


@pytest.mark.parametrize('dilation', [(1, 1), (1, 3), (3, 2), (4, 4)])
def test_nine_taps_are_those_of_the_dilated_convolution(dilation):
    taps = torch.randn(6, 5, 3, 3, dtype=torch.float64)
    kernel = torch.zeros(6, 5, 81, dtype=torch.float64)
    kernel[..., tap_indices(torch.tensor([dilation]), 4)[0]] = taps.flatten(2)
    x = torch.randn(2, 5, 11, 13, dtype=torch.float64)
    expected = F.conv2d(x, taps, padding=dilation, dilation=dilation)
    torch.testing.assert_close(F.conv2d(x, kernel.view(6, 5, 9, 9), padding=4), expected, rtol=0, atol=1e-12)


def test_kept_taps_of_an_embedded_kernel_are_that_kernel():
    weight = torch.randn(4, 3, 3, 3)
    assert embed_taps(weight, 3).shape == (4, 3, 7, 7)
    assert torch.equal(keep_taps(embed_taps(weight, 3), torch.ones(4, 2, dtype=torch.long)), weight)


def test_filters_of_a_group_keep_the_taps_of_the_group():
    weight = torch.randn(6, 2, 5, 5)
    per_group = torch.tensor([[2, 1], [1, 1], [1, 2]])
    assert torch.equal(keep_taps(weight, per_group), keep_taps(weight, per_group.repeat_interleave(2, 0)))


def test_a_dilation_beyond_the_kernel_is_refused():
    with pytest.raises(ValueError, match=r'5x5 kernel holds dilations up to 2, got \(3, 1\)'):
        keep_taps(torch.randn(1, 1, 5, 5), torch.tensor([[3, 1]]))


class _Deformed(nn.Conv2d):
    def forward(self, x):
        return super().forward(x) + 1


def _network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 8, 7, padding=3),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.Conv2d(8, 8, 1),
        _Deformed(8, 8, 3, padding=1),
        nn.Conv2d(8, 8, 5, padding=2, groups=2),
    )


def test_stem_pointwise_and_other_convolutions_are_passed_over():
    network = _network()
    assert [name for name, _ in select_convs(network)] == ['1', '4']
    assert [name for name, _ in select_convs(network, '^[01]$')] == ['0', '1']
    assert [name for name, _ in select_convs(network, lambda name, conv: conv.groups > 1)] == ['4']


def test_kernels_of_a_network_and_of_its_state_dict_agree():
    network = _network()
    (of_network,) = select_kernels(network, 2, filter='4')
    (of_state,) = select_kernels(network.state_dict(), 2, filter='4', groups=2)
    assert of_network.name == of_state.name == '4'
    assert torch.equal(of_network.weight, of_state.weight)
    assert of_network.groups == of_state.groups == 2
    assert of_state.in_channels == 8


@pytest.mark.parametrize(
    'shape, message',
    [
        ((8, 8, 8, 8), r'layer1.0.conv2: kernel 8x8 \(not square and odd\), expected 9x9 for d_max 4'),
        ((8, 8, 9, 7), r'layer1.0.conv2: kernel 9x7 \(not square and odd\), expected 9x9'),
        ((8, 8, 7, 7), r'layer1.0.conv2: kernel 7x7 \(that is d_max 3\), expected 9x9'),
        ((8, 8, 3, 3), 'no supernet kernel of 9x9 selected; kernels present: 3x3'),
    ],
)
def test_other_kernels_are_refused_with_their_size(shape, message):
    with pytest.raises(ValueError, match=message):
        select_kernels({'layer1.0.conv2.weight': torch.zeros(shape)}, 4)


def test_a_stem_of_the_same_kernel_is_no_supernet_layer():
    state = {'conv1.weight': torch.zeros(8, 3, 7, 7), 'layer1.0.conv2.weight': torch.zeros(8, 8, 7, 7)}
    assert [kernel.name for kernel in select_kernels(state, 3)] == ['layer1.0.conv2']


def test_nan_weights_and_wrong_groups_are_refused():
    weight = torch.zeros(8, 4, 5, 5)
    with pytest.raises(ValueError, match='a: 8 filters do not divide into 3 groups'):
        select_kernels({'a.weight': weight}, 2, groups={'a': 3})
    weight[0, 0, 0, :2] = torch.tensor([float('nan'), float('inf')])
    with pytest.raises(ValueError, match='a: 2 of 800 weights are NaN or infinite'):
        select_kernels({'a.weight': weight}, 2)
