"""The convolution that is plain or deformable, against torchvision's deformable convolution."""

import pytest
import torch
from random_weights import normal

from icconv_mm.layers import ScaleEqualizedConv2d
from icconv_mm.layers.pyramid_conv import merged_convs

torchvision_ops = pytest.importorskip('torchvision.ops')


def make(stride=1, padding=1, deform=True, out_channels=4):
    return normal(ScaleEqualizedConv2d(3, out_channels, stride, padding, deform).double(), 0.5)


@pytest.mark.parametrize('size', [(1, 1), (1, 4), (2, 3), (3, 3), (6, 5)])
@pytest.mark.parametrize('stride', [1, 2])
@pytest.mark.parametrize('batch', [1, 3])
def test_equals_torchvisions_at_every_map_size(size, stride, batch):
    conv = make(stride)
    x = torch.randn(batch, 3, *size, dtype=torch.float64, requires_grad=True)
    copy = x.detach().clone().requires_grad_()
    offset = conv.conv_offset(copy)
    want = torchvision_ops.deform_conv2d(copy, offset, conv.weight, conv.bias, stride, 1)
    got = conv(x, deform=True)
    torch.testing.assert_close(got, want, rtol=0, atol=1e-12)
    weight = torch.randn_like(got)
    grads = torch.autograd.grad(got, (x, *conv.parameters()), weight)
    wanted = torch.autograd.grad(want, (copy, *conv.parameters()), weight)
    for one, other in zip(grads, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)


@pytest.mark.parametrize('batch', [33, 48])
def test_batches_that_mmcvs_step_does_not_divide(batch):
    conv = make()
    x = torch.randn(batch, 3, 4, 4, dtype=torch.float64)
    want = torch.cat([conv(part, True) for part in x.split(1)])
    torch.testing.assert_close(conv(x, True), want, rtol=0, atol=1e-12)


def test_starts_as_the_plain_convolution():
    conv = ScaleEqualizedConv2d(8, 8, deform=True)
    x = torch.randn(2, 8, 7, 5)
    torch.testing.assert_close(conv(x, deform=True), conv(x))
    assert 0.005 < conv.weight.std() < 0.02 and not conv.bias.any()
    assert not any(parameter.any() for parameter in conv.conv_offset.parameters())


@pytest.mark.parametrize('deform', [False, True])
@pytest.mark.parametrize('padding', [0, 1])
def test_merged_convolutions_are_the_single_ones(deform, padding):
    convs = [make(padding=padding), make(padding=padding, out_channels=2)]
    merged = {}
    for size in ((6, 5), (3, 4)):
        x = torch.randn(2, 3, *size, dtype=torch.float64, requires_grad=True)
        got, want = merged_convs(x, convs, deform, merged), [conv(x, deform) for conv in convs]
        for one, other in zip(got, want, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-12)
        leaves = [x, *(p for conv in convs for p in conv.parameters() if deform or p.ndim != 4 or p.shape[0] != 18)]
        parts = [
            torch.autograd.grad(sum(y.square().sum() for y in ys), leaves, allow_unused=True) for ys in (got, want)
        ]
        for one, other in zip(*parts):
            assert (one is None) == (other is None)
            if one is not None:
                torch.testing.assert_close(one, other, rtol=0, atol=1e-10)


def test_autocast_gives_the_dtype_of_a_convolution():
    conv = make().float()
    x = torch.randn(2, 3, 6, 5, requires_grad=True)
    full = conv(x, deform=True)
    with torch.autocast('cpu', torch.bfloat16):
        half = conv(x, deform=True)
        assert half.dtype == conv(x).dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), full, rtol=0.05, atol=0.2)
    half.float().sum().backward()
    assert conv.conv_offset.weight.grad.isfinite().all()


def test_channels_last_input():
    conv = make()
    x = torch.randn(2, 3, 6, 5, dtype=torch.float64)
    torch.testing.assert_close(conv(x.to(memory_format=torch.channels_last), True), conv(x, True))
