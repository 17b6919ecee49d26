"""Patterns of whole blocks: by rounding, and by the errors of a search."""

import itertools

import pytest
import torch
from torch import nn

from icconv_mm import ICBackbone, create_model
from icconv_mm.backbones import ICResNet, ICResNeXt
from icconv_mm.errors import InputError
from icconv_mm.layers import ICConv2d
from icconv_mm.patterns import DilationPattern, align, load_pattern
from icconv_mm.patterns.alignment import aligned_choices
from icconv_mm.patterns.search import candidates, edo_search, search_layers

pytest.importorskip('scipy')


def patterns_of(network):
    return [layer.pattern for layer in network.modules() if isinstance(layer, ICConv2d)]


@pytest.mark.parametrize(
    ('runs', 'block', 'aligned'),
    [
        ([(64, 1, 1)], 32, [(64, 1, 1)]),
        ([(32, 1, 1), (16, 2, 2), (16, 3, 3)], 32, [(32, 1, 1), (32, 2, 2)]),  # of equal remainders the smaller
        ([(30, 1, 1), (3, 1, 4), (31, 2, 2)], 32, [(32, 1, 1), (32, 2, 2)]),
        ([(8, 2, 2), (8, 1, 1), (16, 2, 2)], 8, [(8, 1, 1), (24, 2, 2)]),  # one run per dilation
        ([(20, 2, 2), (20, 3, 3)], 16, [(8, 1, 1), (16, 2, 2), (16, 3, 3)]),  # what is left is undilated
        ([(20, 2, 2)], 32, [(20, 1, 1)]),  # narrower than a block
        ([(5, 1, 1), (7, 1, 2)], 1, [(5, 1, 1), (7, 1, 2)]),
    ],
)
def test_runs_become_whole_blocks(runs, block, aligned):
    assert align(DilationPattern(runs), block) == DilationPattern(aligned)


def test_a_block_of_a_grouped_convolution_has_whole_groups():
    assert align(DilationPattern([(36, 1, 1), (60, 2, 2)]), 32, groups=8) == DilationPattern([(48, 1, 1), (48, 2, 2)])
    assert align(DilationPattern([(48, 1, 1), (48, 2, 2)]), 8, groups=2) == DilationPattern([(48, 1, 1), (48, 2, 2)])


@pytest.mark.parametrize('block', [0, -1, True, 1.5, '32'])
def test_a_block_is_a_number_of_channels(block):
    with pytest.raises(InputError, match='align: expected a number of channels above 0'):
        align(DilationPattern([(4, 1, 1)]), block)


@pytest.mark.parametrize(('units', 'block', 'choices'), [(6, 2, 3), (7, 3, 4), (8, 4, 2), (5, 1, 3), (3, 4, 2)])
def test_no_aligned_choice_has_a_smaller_sum_of_errors(units, block, choices):
    errors = torch.rand(units, choices, generator=torch.Generator().manual_seed(units), dtype=torch.float64)
    rest = units % block

    def is_aligned(chosen):
        counts = [chosen.count(choice) - rest * (choice == 0) for choice in range(choices)]
        return all(count >= 0 and count % block == 0 for count in counts)

    all_choices = filter(is_aligned, itertools.product(range(choices), repeat=units))
    least = min(sum(errors[u, choice].item() for u, choice in enumerate(chosen)) for chosen in all_choices)
    aligned = aligned_choices(errors, block).tolist()
    assert is_aligned(aligned)
    assert sum(errors[u, choice].item() for u, choice in enumerate(aligned)) == pytest.approx(least, rel=1e-12)


def test_an_aligned_search_has_whole_blocks_and_says_what_they_cost():
    torch.manual_seed(0)
    supernet = {f'conv{i}.weight': torch.randn(channels, 16, 5, 5) for i, channels in enumerate((16, 32, 60))}
    for pattern in edo_search(supernet, 2, align=8, sort=True):
        counts = [n - pattern.out_channels % 8 * ((h, w) == (1, 1)) for n, h, w in pattern]
        assert all(count % 8 == 0 for count in counts) and len(pattern) == len(pattern.histogram())
    free, aligned = (search_layers(supernet, 2, align=block) for block in (None, 8))
    assert all(result.extra == 0 for result in free)
    assert all(0 <= result.extra < 0.5 for result in aligned) and any(result.extra > 0 for result in aligned)
    assert edo_search(supernet, 2, align=1) == edo_search(supernet, 2)


def test_an_aligned_search_of_groups():
    torch.manual_seed(0)
    weights = {'conv.weight': torch.randn(48, 6, 5, 5)}
    (pattern,) = edo_search(weights, 2, groups=8, align=12, filter='conv', sort=True)  # groups of 6 channels
    assert pattern.out_channels == 8 and all(run.out_channels % 2 == 0 for run in pattern)


def test_the_search_of_a_large_layer_is_exact_for_planted_blocks():
    torch.manual_seed(0)
    errors = torch.rand(512, len(candidates(4)), dtype=torch.float64) + 1
    planted = torch.arange(512) % 16
    errors[torch.arange(512), planted] = 0
    assert torch.equal(aligned_choices(errors, 32), planted)


def test_every_door_aligns():
    expected = load_pattern('geometric_d4', [64, 128], align=32)
    assert expected[0] == DilationPattern([(32, 1, 1), (32, 2, 2)])
    assert expected[1] == DilationPattern([(64, 1, 1), (32, 2, 2), (32, 3, 3)])
    networks = [
        ICResNet(18, 'geometric_d4', align=32),
        create_model('ic_resnet18', pattern='geometric_d4', align=32),
        ICBackbone(dict(type='mmdet.ResNet', depth=18), 'geometric_d4', align=32),
    ]
    for network in networks:
        assert all(run.out_channels % 32 == 0 for pattern in patterns_of(network) for run in pattern)
    grouped = patterns_of(ICResNeXt(50, 'even_d2', align=32))
    assert all(run.out_channels % 32 == 0 for pattern in grouped for run in pattern)
    with pytest.raises(InputError, match='align is for a pattern; a supernet is aligned by the search'):
        ICResNet(18, supernet_d_max=2, align=32)


def test_an_even_pattern_has_all_pairs():
    (pattern,) = load_pattern('even_d2', [10])
    assert pattern == DilationPattern([(3, 1, 1), (3, 1, 2), (2, 2, 1), (2, 2, 2)])
    (narrow,) = load_pattern('even_d2', [3])
    assert narrow.out_channels == 3


def test_an_aligned_network_keeps_its_keys_and_runs():
    dense = nn.Sequential(nn.Conv2d(64, 64, 3, padding=1))
    network = ICBackbone(nn.Sequential(nn.Conv2d(64, 64, 3, padding=1)), 'geometric_d4', align=32)
    assert network.state_dict().keys() == dense.state_dict().keys()
    assert network(torch.randn(1, 64, 9, 9)).shape == (1, 64, 9, 9)
