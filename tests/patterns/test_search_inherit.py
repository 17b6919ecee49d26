"""The initial checkpoint of the searched network computes what the supernet does with all dropped taps at zero."""

import pytest
import torch
from random_weights import with_random_weights
from torch import nn

from icconv_mm.backbones import ICResNet, ICResNeXt
from icconv_mm.patterns.search import inherit_taps, search_layers
from icconv_mm.patterns.supernet import tap_indices

NETWORKS = {
    'basic blocks': (ICResNet, {'depth': 18}),
    'deep stem, other downsampling': (ICResNet, {'depth': 18, 'deep_stem': True, 'avg_down': True}),
    'bottlenecks': (
        ICResNet,
        {'depth': 50, 'num_stages': 2, 'strides': (1, 2), 'dilations': (1, 1), 'out_indices': (1,)},
    ),
    'grouped': (ICResNeXt, {'depth': 50, 'groups': 4, 'base_width': 16, 'out_indices': (3,)}),
}


def _supernet(kind, settings, d_max) -> nn.Module:
    return with_random_weights(kind(**settings, supernet_d_max=d_max, base_channels=8))


@torch.no_grad()
def _mask(supernet, results, d_max):
    for result in results:
        weight = supernet.get_submodule(result.name).weight
        taps = tap_indices(result.dilations, d_max).repeat_interleave(len(weight) // len(result.dilations), 0)
        mask = torch.zeros(len(weight), 1, (2 * d_max + 1) ** 2).scatter_(2, taps[:, None], 1.0)
        weight *= mask.unflatten(2, weight.shape[2:])


@pytest.mark.parametrize('network', NETWORKS)
@pytest.mark.parametrize('sort', [True, False])
def test_network_equals_the_masked_supernet(network, sort):
    kind, settings = NETWORKS[network]
    d_max = 3
    supernet = _supernet(kind, settings, d_max)
    results = search_layers(supernet, d_max, filter=r'^layer\d')
    before = {key: value.clone() for key, value in supernet.state_dict().items()}
    patterns, state = inherit_taps(supernet.state_dict(), results, sort)
    assert all(torch.equal(before[key], value) for key, value in supernet.state_dict().items())

    searched = kind(**settings, pattern=patterns, base_channels=8).eval()
    searched.load_state_dict(state, strict=True)
    _mask(supernet, results, d_max)
    x = torch.randn(2, 3, 70, 58)
    with torch.no_grad():
        for got, expected in zip(searched(x), supernet(x)):
            torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5 * expected.abs().max().item())

    for result, pattern in zip(results, patterns):
        assert pattern.histogram() == result.pattern().histogram()
        free = sort and not (settings['depth'] == 18 and result.name.endswith('conv2'))
        if free:
            assert list(pattern) == list(result.pattern(sort=True))
        else:
            assert list(pattern) == list(result.pattern())


def test_prefixes_of_a_whole_model_are_kept():
    supernet = _supernet(ICResNet, {'depth': 18}, 2)
    results = search_layers(supernet, 2, filter=r'^layer\d')
    patterns, expected = inherit_taps(supernet.state_dict(), results)
    model = {f'backbone.{key}': value for key, value in supernet.state_dict().items()} | {
        'head.conv1.weight': torch.ones(1)
    }
    searched, state = inherit_taps(model, search_layers(model, 2, filter=r'layer\d'))
    assert searched == patterns
    assert state.keys() == model.keys()
    assert all(torch.equal(state[f'backbone.{key}'], value) for key, value in expected.items())


class _Block(nn.Module):
    def __init__(self, order: str):
        super().__init__()
        for name in order.split():
            layer = nn.BatchNorm2d(8) if name.startswith('bn') else nn.Conv2d(8, 8, 5, padding=2)
            self.add_module(name, layer)


@pytest.mark.parametrize(
    'order, is_sorted',
    [
        ('conv1 bn1 conv2 bn2', True),
        ('bn1 conv1 bn2 conv2', False),  # pre-activation: conv1 does not feed bn1
        ('conv1 bn1 conv2 bn2 se', False),  # something else may see the channels
        ('conv1 gn1 conv2 gn2', False),
        ('conv1 conv2', False),
    ],
)
def test_channels_move_only_where_the_function_is_kept(order, is_sorted):
    state = {f'layer1.0.{key}': value for key, value in _Block(order).state_dict().items()}
    results = search_layers(state, 2)
    patterns, _ = inherit_taps(state, results)
    assert (patterns[0] == results[0].pattern(sort=True)) == is_sorted
    if not is_sorted:
        assert patterns[0] == results[0].pattern()
