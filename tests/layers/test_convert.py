"""Conversion of any network: outputs kept, weights kept, filters, whole-or-nothing, and the search between."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

from icconv_mm.backbones import ICBackbone, ResNet
from icconv_mm.errors import InputError
from icconv_mm.layers import ICConv2d, to_inception, to_supernet
from icconv_mm.layers.convert import inception_conv, supernet_conv
from icconv_mm.ops import use_backend
from icconv_mm.patterns import DilationPattern, write_patterns
from icconv_mm.patterns.search import edo_search
from icconv_mm.patterns.supernet import select_convs, tap_indices


def _conv(**settings) -> nn.Conv2d:
    settings = {'padding': settings.get('dilation', 1), 'bias': False} | settings
    return nn.Conv2d(8, 12, 3, **settings)


def _network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1),
        nn.Sequential(nn.Conv2d(8, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12), nn.ReLU()),
        nn.Conv2d(12, 12, 3, stride=2, padding=1, groups=4),
        nn.Conv2d(12, 12, 3, padding=1, groups=12),
        nn.Conv2d(12, 5, 1),
    ).eval()


CASES = [{}, {'stride': 2}, {'dilation': 2}, {'dilation': (1, 3)}, {'groups': 4}, {'bias': True}]


@pytest.mark.parametrize('settings', [*CASES, {'padding': 0}, {'stride': (1, 2)}, {'padding': (2, 1)}])
def test_supernet_layer_computes_what_the_layer_did(settings):
    conv = _conv(**settings)
    supernet = supernet_conv(conv, 4)
    assert type(supernet) is nn.Conv2d and supernet.kernel_size == (9, 9)
    for size in [(17, 14), (6, 9)]:
        x = torch.randn(2, 8, *size)
        torch.testing.assert_close(supernet(x), conv(x), rtol=0, atol=1e-5)


@pytest.mark.parametrize('settings', CASES)
def test_inception_layer_of_the_dense_pattern_is_the_layer(settings):
    conv = _conv(**settings)
    new = inception_conv(conv, DilationPattern(((12, 1, 1),)))
    x = torch.randn(2, 8, 11, 14)
    assert new.weight is conv.weight and new.bias is conv.bias
    with use_backend('reference'):
        assert torch.equal(new(x), conv(x))
    torch.testing.assert_close(new(x), conv(x), rtol=0, atol=1e-5)


@pytest.mark.parametrize('settings', CASES)
def test_inception_layer_is_the_supernet_without_the_dropped_taps(settings):
    supernet = supernet_conv(_conv(**settings), 3)
    nn.init.normal_(supernet.weight, std=0.1)
    (pattern,) = edo_search(supernet, 3)
    new = inception_conv(supernet, pattern)
    masked = copy.deepcopy(supernet)
    dilations = torch.tensor([run[1:] for run in new.pattern for _ in range(run.out_channels)])
    mask = torch.zeros(12, 1, 49).scatter_(2, tap_indices(dilations, 3)[:, None], 1.0)
    masked.weight.data *= mask.unflatten(2, (7, 7))
    x = torch.randn(2, 8, 11, 14)
    torch.testing.assert_close(new(x), masked(x), rtol=0, atol=1e-5)


def test_three_steps_on_a_network():
    network = _network()
    x = torch.randn(2, 3, 18, 22)
    expected = network(x)
    supernet = to_supernet(copy.deepcopy(network), 2)
    assert [conv.kernel_size for _, conv in select_convs(supernet)] == [(5, 5)] * 3
    torch.testing.assert_close(supernet(x), expected, rtol=0, atol=1e-5)
    patterns = edo_search(supernet, 2)  # of an untrained supernet all taps lie at dilation 1
    assert [list(pattern) for pattern in patterns] == [[(12, 1, 1)], [(4, 1, 1)], [(12, 1, 1)]]
    torch.testing.assert_close(to_inception(supernet, patterns)(x), expected, rtol=0, atol=1e-5)
    with use_backend('reference'):
        assert torch.equal(to_inception(copy.deepcopy(network), 'dense')(x), expected)
    dilated = to_inception(network, 'geometric_d2')
    assert [type(dilated[i]) for i in (0, 2, 3, 4)] == [nn.Conv2d, ICConv2d, ICConv2d, nn.Conv2d]
    assert list(dilated[2].pattern) == [(6, 1, 1), (6, 2, 2)] and list(dilated[3].pattern) == [(6, 1, 1), (6, 2, 2)]
    assert dilated(x).shape == expected.shape
    assert set(dilated.state_dict()) == set(_network().state_dict())


def test_filter_chooses_layers_by_name_or_module():
    assert [name for name, conv in to_supernet(_network(), 3, '^(0|1)').named_modules() if _side(conv) == 7] == [
        '0',
        '1.0',
    ]
    by_module = to_supernet(_network(), 3, lambda name, conv: conv.groups == 1 and conv.in_channels > 3)
    assert [name for name, conv in by_module.named_modules() if _side(conv) == 7] == ['1.0']


def test_without_a_filter_the_stem_stays_at_every_door():
    network = ResNet(18, deep_stem=True, base_channels=8)
    chosen = [name for name, _ in select_convs(network)]
    assert len(chosen) == 16 and all(name.startswith('layer') for name in chosen)
    supernets = [to_supernet(copy.deepcopy(network), 2), ICBackbone(copy.deepcopy(network), supernet_d_max=2)]
    for supernet in supernets:
        assert [name for name, layer in supernet.named_modules() if _side(layer) == 5] == chosen
        assert len(edo_search(supernet, 2)) == len(edo_search(supernet.state_dict(), 2)) == len(chosen)
    patterns = edo_search(supernets[0], 2)
    for door in (to_inception, ICBackbone):
        converted = door(copy.deepcopy(network), patterns)
        assert [name for name, layer in converted.named_modules() if isinstance(layer, ICConv2d)] == chosen


def _side(layer) -> int | None:
    return layer.kernel_size[0] if isinstance(layer, nn.Conv2d) else None


def test_a_shared_layer_stays_shared_and_a_single_layer_is_replaced():
    conv = _conv()
    network = nn.ModuleDict({'a': conv, 'b': nn.Sequential(conv)})
    to_supernet(network, 2)
    assert network['a'] is network['b'][0] and network['a'].kernel_size == (5, 5)
    assert isinstance(to_inception(conv, [[(12, 1, 2)]]), ICConv2d)


def test_dtype_mode_and_requires_grad_are_kept():
    conv = _conv(bias=True).double().eval()
    conv.weight.requires_grad_(False)
    for new in (supernet_conv(conv, 2), inception_conv(supernet_conv(conv, 2), [(12, 2, 1)])):
        assert new.weight.dtype == torch.float64 and not new.weight.requires_grad and not new.training
        assert new.bias is conv.bias


def test_a_pattern_file_is_read(tmp_path):
    patterns = [DilationPattern(((12, 1, 2),)), DilationPattern(((1, 2, 2), (3, 1, 1))), DilationPattern(((12, 1, 1),))]
    write_patterns(patterns, tmp_path / 'pattern.json')
    network = to_inception(_network(), str(tmp_path / 'pattern.json'))
    assert list(network[2].pattern) == [(3, 2, 2), (9, 1, 1)]  # counted in groups of three channels


def test_a_pattern_of_the_supernet_kernels_alone_does_not_fit_all():
    network = nn.Sequential(nn.Conv2d(8, 8, 5, padding=2), nn.Conv2d(8, 8, 3, padding=1))
    patterns = edo_search(network, d_max=2)
    with pytest.raises(InputError, match='the network has 2 convolutions to convert, the pattern 1 layers'):
        to_inception(network, patterns)
    assert type(to_inception(network, patterns, filter='0')[1]) is nn.Conv2d


def _unchanged(network) -> bool:
    return all(type(layer) is not ICConv2d and _side(layer) in (None, 1, 3) for layer in network.modules())


@pytest.mark.parametrize(
    'pattern, message',
    [
        ([[(12, 1, 1)]] * 2, 'the network has 3 convolutions to convert, the pattern 2 layers'),
        ([[(12, 1, 1)], [(12, 1, 1)], [(11, 1, 1)]], r'layer 2 \(3\): the pattern sums to 11, expected 12'),
        ([[(12, 1, 1)], [(12, 0, 1)], [(12, 1, 1)]], r'layer 1: run 0: a dilation must be at least 1, got \(0, 1\)'),
    ],
)
def test_a_pattern_that_does_not_fit_changes_nothing(pattern, message):
    network = _network()
    with pytest.raises(ValueError, match=message):
        to_inception(network, pattern)
    assert _unchanged(network)


def test_layers_that_cannot_be_converted_are_named():
    network = _network()
    network[3].padding = (0, 0)
    with pytest.raises(ValueError, match=r'3: padding \(0, 0\), expected \(1, 1\)'):
        to_inception(network, 'dense')
    network[3].padding_mode = 'reflect'
    with pytest.raises(ValueError, match=r"3: padding .* of mode 'reflect'"):
        to_supernet(network, 2)
    with pytest.raises(ValueError, match="Sequential: the filter 'nothing' selects no 3x3 convolution; it has "):
        to_supernet(network, 2, 'nothing')
    with pytest.raises(ValueError, match=r'0: a 5x5 kernel holds dilations up to 2'):
        to_inception(to_supernet(network[1], 2), [[(12, 3, 1)]])
    assert _unchanged(network[:1]) and _unchanged(network[2:])


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda conv: conv.register_forward_hook(lambda *_: None), '1: it has hooks, which would be lost'),
        (lambda conv: prune.random_unstructured(conv, 'weight', 0.5), '1: its weight is computed'),
        (parametrizations.spectral_norm, '1: its weight is computed'),
    ],
)
def test_what_a_conversion_would_lose(change, message):
    network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1))
    change(network[1])
    for convert in (lambda: to_inception(network, 'geometric_d2'), lambda: to_supernet(network, 2)):
        with pytest.raises(ValueError, match=message):
            convert()


def test_weights_that_layers_share():
    """Inception layers share them still; each channel of a supernet is to find one dilation."""
    network = nn.Sequential(*[nn.Conv2d(8, 8, 3, padding=1) for _ in range(3)])
    network[2].weight = network[1].weight
    with pytest.raises(ValueError, match='2: it shares its weight with 1, and two layers have'):
        to_supernet(network, 2)
    assert _unchanged(network)
    to_inception(network, 'geometric_d2')
    assert network[2].weight is network[1].weight


@pytest.mark.parametrize(('pattern', 'merges'), [('dense', True), ('geometric_d2', False)])
def test_branches_with_dilations_are_not_merged(pattern, merges):
    """RepVGG's own merging would leave the dilations out."""
    backbones = pytest.importorskip('mmpretrain.models.backbones')
    arch = dict(num_blocks=[1, 1, 1, 1], width_factor=[0.25] * 4, group_layer_map=None, se_cfg=None)
    network = backbones.RepVGG(arch)
    network.eval()  # which returns nothing
    to_inception(network, pattern)
    image = torch.rand(1, 3, 64, 64)
    expected = network(image)[0]
    network = pickle.loads(pickle.dumps(network))
    if merges:
        network.switch_to_deploy()
        torch.testing.assert_close(network(image)[0], expected, rtol=1e-4, atol=1e-5)
    else:
        with pytest.raises(ValueError, match='branches with dilations of their own make no dense convolution'):
            network.switch_to_deploy()
