"""EDO: the criteria against loops, planted dilations, ties, groups, measured means and bad input."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from icconv_mm.patterns.search import (
    CRITERIA,
    dilation_errors,
    edo_search,
    measure_channel_means,
    runs_of,
    search_layers,
)
from icconv_mm.patterns.supernet import SupernetKernel, candidates, tap_indices


def _planted(filters: int, fan_in: int, d_max: int, noise: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights whose nine taps of a random dilation are N(0, 1) and all taps are disturbed by N(0, noise^2)."""
    choices = candidates(d_max)
    dilations = choices[torch.randint(len(choices), (filters,))]
    weight = torch.zeros(filters, fan_in, (2 * d_max + 1) ** 2)
    taps = tap_indices(dilations, d_max)[:, None].expand(-1, fan_in, -1)
    weight.scatter_(2, taps, torch.randn(filters, fan_in, 9))
    weight += noise * torch.randn_like(weight)
    return weight.unflatten(2, (2 * d_max + 1, 2 * d_max + 1)), dilations


def _loop(weight, d_max, criterion, means, groups):
    """The definition, tap by tap, in Python floats: the dilation of each group (or filter)."""
    filters, fan_in, side, _ = weight.shape
    weight, means, units = weight.tolist(), means.tolist(), groups if groups > 1 else filters
    choices = []
    for unit in range(units):
        best = None
        for d_sum in range(2, 2 * d_max + 1):
            for d_h in range(max(1, d_sum - d_max), min(d_max, d_sum - 1) + 1):
                d_w = d_sum - d_h
                taps = {(d_max + a * d_h, d_max + b * d_w) for a in (-1, 0, 1) for b in (-1, 0, 1)}
                error = 0.0
                for filter in range(unit * filters // units, (unit + 1) * filters // units):
                    group = filter // (filters // groups)
                    total = squares = 0.0
                    for c in range(fan_in):
                        for i in range(side):
                            for j in range(side):
                                if (i, j) not in taps:
                                    value = means[group * fan_in + c] * weight[filter][c][i][j]
                                    total += abs(value) if criterion == 'kept_mass' else value
                                    squares += (math.pi - 1) * value**2
                    error += math.hypot(total, math.sqrt(squares)) if criterion == 'rms' else abs(total)
                if best is None or error < best[0] - 1e-9:
                    best = (error, (d_h, d_w))
        choices.append(best[1])
    return choices


@pytest.mark.parametrize('criterion', CRITERIA)
@pytest.mark.parametrize('groups, d_max', [(1, 3), (4, 2), (8, 2)])
def test_search_equals_a_loop_over_all_taps(criterion, groups, d_max):
    weight = torch.randn(8, 8 // groups, 2 * d_max + 1, 2 * d_max + 1)
    for means in (torch.ones(8), torch.randn(8), torch.zeros(8)):
        expected = runs_of(torch.tensor(_loop(weight, d_max, criterion, means, groups)))
        patterns = edo_search({'a.weight': weight}, d_max, criterion, [means], groups=groups)
        assert patterns == [expected]
    assert patterns[0].histogram() == {(1, 1): groups if groups > 1 else 8}  # all errors are 0: the smallest dilation


@pytest.mark.parametrize('criterion', CRITERIA)
def test_mean_one_is_the_default(criterion):
    state = {'a.weight': torch.randn(16, 8, 7, 7)}
    assert edo_search(state, 3, criterion) == edo_search(state, 3, criterion, {'a': torch.ones(8)})


@pytest.mark.parametrize('criterion', ['rms', 'kept_mass'])
def test_planted_dilations_are_recovered_at_ten_percent_noise(criterion):
    right = total = 0
    for fan_in, filters in [(16, 512), (64, 512), (256, 128)]:
        weight, planted = _planted(filters, fan_in, 4, noise=0.1)
        (result,) = search_layers({'a.weight': weight}, 4, criterion)
        right += (result.dilations == planted).all(1).sum().item()
        total += filters
    assert right >= 0.99 * total, f'{right} of {total}'


def test_expectation_recovers_planted_taps_that_do_not_cancel():
    weight, planted = _planted(256, 16, 4, noise=0.1)
    (result,) = search_layers({'a.weight': weight.abs()}, 4, 'expectation')
    assert (result.dilations == planted).all(1).float().mean() >= 0.99
    (result,) = search_layers({'a.weight': weight}, 4, 'expectation')  # and here they do: why it is not the default
    assert (result.dilations == planted).all(1).float().mean() < 0.9


def test_expectation_is_the_distance_of_expected_outputs():
    """On constant inputs m_c, away from the border, the error is |W x - W_d x| itself."""
    weight, means = torch.randn(5, 6, 5, 5, dtype=torch.float64), torch.rand(6, dtype=torch.float64)
    (result,) = search_layers({'a.weight': weight}, 2, 'expectation', [means])
    x = means.view(1, 6, 1, 1).expand(1, 6, 5, 5)
    errors = []
    for taps in tap_indices(candidates(2), 2):
        masked = torch.zeros_like(weight).flatten(2)
        masked[..., taps] = weight.flatten(2)[..., taps]
        errors.append((F.conv2d(x, weight) - F.conv2d(x, masked.view_as(weight))).abs().flatten())
    assert torch.equal(result.dilations, candidates(2)[torch.stack(errors).argmin(0)])


def test_rms_is_the_root_mean_square_for_relu_gaussian_inputs():
    weight = torch.randn(4, 3, 3, 3, dtype=torch.float64)
    scale = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
    x = (torch.randn(100_000, 3, 9, dtype=torch.float64) * scale[:, None]).clamp(min=0)
    kernel = torch.zeros(4, 3, 5, 5, dtype=torch.float64)
    kernel[..., ::2, ::2] = weight  # all nine lie at dilation (2, 2); (1, 1) keeps the centre alone
    kernel[..., 2, 2] = 0
    weight[..., 1, 1] = 0
    dropped = torch.einsum('ncp,ocp->no', x, weight.flatten(2))
    errors, _ = dilation_errors(SupernetKernel('a', kernel, 1), 2, 'rms', scale / math.sqrt(2 * math.pi))
    torch.testing.assert_close(errors[:, 0], dropped.square().mean(0).sqrt(), rtol=0.01, atol=0)
    assert errors[:, -1].abs().max() == 0


def test_equal_errors_go_to_the_smaller_dilation():
    weight = torch.zeros(4, 8, 9, 9)
    weight[1, :, 4, 4] = 1.0  # every candidate keeps the centre
    for i, j in [(1, 2), (1, -2), (-1, 2), (-1, -2)]:  # (1, 2) and (2, 1) keep the same mass, summed in another order
        weight[2, :, 4 + i, 4 + j] = weight[2, :, 4 + j, 4 + i] = torch.randn(8)
    weight[3, :, 4, 4 + 3] = 1.0  # column distance 3, whatever the rows: (1, 3)
    patterns = edo_search({'a.weight': weight}, 4)
    assert list(patterns[0]) == [(2, 1, 1), (1, 1, 2), (1, 1, 3)]


def test_measured_means_decide():
    """A channel that is always zero must not pull the choice to the taps that read it."""
    weight = torch.zeros(1, 2, 5, 5)
    weight[:, 0, 0, 0] = 5.0  # (2, 2) of channel 0
    weight[:, 1, 1, 1] = 1.0  # (1, 1) of channel 1
    state = {'a.weight': weight}
    for criterion in CRITERIA:
        assert list(edo_search(state, 2, criterion)[0]) == [(1, 2, 2)]
        assert list(edo_search(state, 2, criterion, {'a': torch.tensor([0.1, 1.0])})[0]) == [(1, 1, 1)]


def test_channel_means_are_measured_on_batches():
    network = nn.Sequential(nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 6, 5, padding=2)).train()
    batches = [torch.randn(2, 4, 6, 6), torch.randn(1, 4, 3, 5)]
    means = measure_channel_means(network, batches)
    inputs = torch.cat([x.clamp(min=0).transpose(0, 1).flatten(1) for x in batches], 1)
    torch.testing.assert_close(
        means['2'], inputs.double().mean(1), rtol=1e-4, atol=0
    )  # a fresh norm divides by 1.000005
    assert network.training and network[0].num_batches_tracked == 0
    assert edo_search(network, 2, channel_means=means)[0].out_channels == 6
    with pytest.raises(ValueError, match='no channel means measured'):
        measure_channel_means(network, [])


def test_order_of_channels_is_kept_unless_sorted():
    weight, planted = _planted(32, 16, 2, noise=0.0)
    (unsorted,), (ordered,) = (edo_search({'a.weight': weight}, 2, sort=sort) for sort in (False, True))
    assert [d for n, *d in unsorted for _ in range(n)] == planted.tolist()
    assert ordered.histogram() == unsorted.histogram()
    assert [run[1:] for run in ordered] == sorted({run[1:] for run in unsorted})


@pytest.mark.parametrize(
    'settings, message',
    [
        ({'criterion': 'l1'}, 'no criterion l1; there are: rms, expectation, kept_mass'),
        ({'channel_means': []}, 'channel means of 0 layers for 1 supernet layers'),
        ({'channel_means': {'b': torch.ones(4)}}, 'a: no channel means given'),
        ({'channel_means': [torch.ones(3)]}, r'a: channel means \[4\] expected, got \[3\]'),
        ({'channel_means': [torch.tensor([1, 1, 1, torch.nan])]}, 'a: 1 channel means are NaN or infinite'),
    ],
)
def test_bad_input_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        edo_search({'a.weight': torch.randn(4, 4, 5, 5)}, 2, **settings)
