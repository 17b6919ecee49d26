"""Deformable layers have the keys and results of mmcv's, on a CPU in less time."""

import pickle

import pytest
import torch
from torch import nn

from icconv_mm.layers import DeformConv2d, ModulatedDeformConv2d

KINDS = {'DCN': DeformConv2d, 'DCNv2': ModulatedDeformConv2d}


def moved(layer: nn.Module) -> nn.Module:
    nn.init.normal_(layer.conv_offset.weight, std=0.3)
    return layer


@pytest.mark.parametrize('name', KINDS)
@pytest.mark.parametrize(
    'options', [{}, dict(stride=2, padding=2, dilation=2, groups=2, deform_groups=4)], ids=['plain', 'all options']
)
def test_a_layer_of_mmcv_in_its_place(name, options):
    mmcv_ops = pytest.importorskip('mmcv.ops')
    theirs = {'DCN': mmcv_ops.DeformConv2dPack, 'DCNv2': mmcv_ops.ModulatedDeformConv2dPack}[name]
    torch.manual_seed(0)
    other = moved(theirs(8, 12, 3, **options))
    layer = KINDS[name](8, 12, 3, **options)
    layer.load_state_dict(other.state_dict())
    x = torch.randn(2, 8, 9, 11)
    expected = other(x)
    torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-5)
    grad = torch.randn_like(expected)
    expected.backward(grad)
    layer(x).backward(grad)
    for (key, one), two in zip(layer.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(one.grad, two.grad, rtol=1e-4, atol=1e-4, msg=key)


@pytest.mark.parametrize('name', KINDS)
def test_weights_start_in_the_range_of_mmcvs(name):
    mmcv_ops = pytest.importorskip('mmcv.ops')
    theirs = {'DCN': mmcv_ops.DeformConv2dPack, 'DCNv2': mmcv_ops.ModulatedDeformConv2dPack}[name]
    torch.manual_seed(0)
    one, other = KINDS[name](16, 24, 3, groups=2), theirs(16, 24, 3, groups=2)
    assert one.weight.abs().max().item() == pytest.approx(other.weight.abs().max().item(), rel=0.02)
    assert not any(parameter.any() for parameter in one.conv_offset.parameters())
    assert (one.bias is None) == (getattr(other, 'bias', None) is None)


@pytest.mark.parametrize('kind', KINDS.values())
def test_bfloat16_under_autocast(kind):
    torch.manual_seed(0)
    layer, x = moved(kind(8, 6, 3, padding=1)), torch.randn(1, 8, 12, 12)
    with torch.autocast('cpu', torch.bfloat16):
        y = layer(x)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), layer(x), rtol=0.1, atol=0.1)


def test_pickles_and_shows_its_settings():
    layer = pickle.loads(pickle.dumps(DeformConv2d(8, 6, 3, deform_groups=2)))
    assert 'kernel_size=(3, 3)' in repr(layer) and 'deform_groups=2' in repr(layer)
