"""Integrated batch norm against batch norm over the concatenated pyramid."""

import pytest
import torch
from torch import nn

from icconv_mm.layers import IntegratedBatchNorm, IntegratedSyncBatchNorm, integrated_batch_norm

SIZES = [(5, 7), (3, 4), (2, 2), (1, 1)]
CHANNELS = 6


def pyramid(dtype=torch.float64, batch=2, requires_grad=False):
    levels = [torch.randn(batch, CHANNELS, *size, dtype=torch.float64) * 3 + 1 for size in SIZES]
    return [level.to(dtype).requires_grad_(requires_grad) for level in levels]


def randomize(norm):
    with torch.no_grad():
        norm.weight.uniform_(0.5, 1.5)
        norm.bias.normal_()
    return norm


def concatenated(norm, levels):
    """What ``nn.BatchNorm2d`` makes of all pixels of all levels."""
    pixels = [level.flatten(2) for level in levels]
    parts = norm(torch.cat(pixels, 2)[..., None]).split([x.shape[2] for x in pixels], 2)
    return [part.reshape(level.shape) for part, level in zip(parts, levels)]


@pytest.fixture
def pair():
    ours = randomize(IntegratedBatchNorm(CHANNELS).double())
    theirs = nn.BatchNorm2d(CHANNELS).double()
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


def assert_close(got, want):
    for one, other in zip(got, want, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)


@pytest.mark.parametrize('momentum', [0.1, None])
def test_equals_batch_norm_over_the_concatenation(pair, momentum):
    ours, theirs = pair
    ours.momentum = theirs.momentum = momentum
    for _ in range(3):  # running statistics over several batches
        levels = pyramid(requires_grad=True)
        copies = [level.detach().clone().requires_grad_() for level in levels]
        weights = [torch.randn_like(level) for level in levels]
        got, want = ours(levels), concatenated(theirs, copies)
        assert_close(got, want)
        torch.autograd.backward(got, weights)
        torch.autograd.backward(want, weights)
        assert_close([level.grad for level in levels], [copy.grad for copy in copies])
    assert_close([p.grad for p in ours.parameters()], [p.grad for p in theirs.parameters()])
    assert_close(ours.buffers(), theirs.buffers())
    assert_close(ours.eval()(levels), concatenated(theirs.eval(), copies))


def test_evaluation_mode_changes_no_buffer_and_has_gradients(pair):
    ours, theirs = (norm.eval() for norm in pair)
    levels = pyramid(requires_grad=True)
    copies = [level.detach().clone().requires_grad_() for level in levels]
    before = {key: value.clone() for key, value in ours.state_dict().items()}
    sum(x.square().sum() for x in ours(levels)).backward()
    sum(x.square().sum() for x in concatenated(theirs, copies)).backward()
    assert_close([level.grad for level in levels], [copy.grad for copy in copies])
    assert_close([p.grad for p in ours.parameters()], [p.grad for p in theirs.parameters()])
    assert all(torch.equal(value, before[key]) for key, value in ours.state_dict().items())


def test_without_running_statistics_uses_the_batchs_in_evaluation_mode():
    norm = IntegratedBatchNorm(CHANNELS, track_running_stats=False).double()
    reference = nn.BatchNorm2d(CHANNELS, track_running_stats=False).double()
    levels = pyramid()
    assert_close(norm.eval()(levels), concatenated(reference.eval(), levels))


def test_under_autocast_after_a_convolution():
    conv, norm = nn.Conv2d(CHANNELS, CHANNELS, 1), IntegratedBatchNorm(CHANNELS)
    levels = pyramid(torch.float32)
    with torch.autocast('cpu', torch.bfloat16):
        outputs = norm([conv(x) for x in levels])
        loss = sum(x.float().square().sum() for x in outputs)
    loss.backward()
    assert {x.dtype for x in outputs} == {torch.bfloat16}
    assert conv.weight.grad.isfinite().all() and conv.weight.grad.any()
    assert norm.weight.grad.dtype == torch.float32


def test_empty_batch_in_evaluation_mode_and_an_empty_level_in_training_mode(pair):
    ours, theirs = pair
    assert [x.shape[0] for x in ours.eval()(pyramid(batch=0))] == [0] * len(SIZES)
    levels = pyramid()
    got = ours.train()([*levels, torch.zeros(2, CHANNELS, 0, 3, dtype=torch.float64)])
    assert_close(got[:-1], concatenated(theirs, levels))


def test_one_pixel_in_total_is_refused(pair):
    ours, _ = pair
    pixel = torch.zeros(1, CHANNELS, 1, 1, dtype=torch.float64)
    with pytest.raises(ValueError, match=r'2 pixels or more over all levels, got 1 \(levels \[1, 6, 1, 1\]\)'):
        ours([pixel])
    ours([pixel, pixel])
    ours.eval()([pixel])


def test_other_channels_are_refused(pair):
    levels = pyramid()
    levels[2] = levels[2][:, :4]
    with pytest.raises(ValueError, match=r'level 2: expected \[N, 6, H, W\], got \[2, 4, 2, 2\]'):
        pair[0](levels)


def test_is_an_ordinary_batch_norm_to_libraries():
    """Optimiser options for norms, and the conversions between ordinary and synchronised norms in whole models."""
    norm = randomize(IntegratedBatchNorm(CHANNELS))
    assert isinstance(norm, nn.modules.batchnorm._BatchNorm)
    assert list(norm.state_dict()) == list(nn.BatchNorm2d(CHANNELS).state_dict())
    levels = pyramid(torch.float32)
    expected = norm(levels)
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(norm)
    assert type(converted) is nn.SyncBatchNorm
    assert_close(integrated_batch_norm(levels, converted), expected)
    synchronized = IntegratedSyncBatchNorm(CHANNELS)
    synchronized.load_state_dict(norm.state_dict())
    assert_close(synchronized(levels), expected)  # without processes: alone
