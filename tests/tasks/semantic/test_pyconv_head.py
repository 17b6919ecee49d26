import pytest
import torch
from torch import nn

pytest.importorskip('mmseg')

from icconv_mm.errors import InputError
from icconv_mm.layers import PyConv2d
from icconv_mm.registry import MODELS
from icconv_mm.tasks.semantic import PyConvHead

SMALL = {'in_channels': 32, 'channels': 16, 'pyconv_channels': 64, 'num_classes': 5, 'norm_cfg': {'type': 'BN'}}


@pytest.fixture
def head():
    head = PyConvHead(**SMALL, in_index=1).eval()
    for module in head.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.5, 0.5), module.running_var.uniform_(0.5, 2)
    return head


@pytest.fixture
def maps():
    return torch.randn(2, 8, 23, 21), torch.randn(2, 32, 12, 11)


def test_parts():
    head = MODELS.build({'type': 'icconv_mm.PyConvHead', 'in_channels': 2048, 'num_classes': 150})
    for context in (head.local_context, head.global_context):
        assert [conv.kernel_size[0] for conv in context.pyconv.pyconv_levels] == [3, 5, 7, 9]
        assert [conv.groups for conv in context.pyconv.pyconv_levels] == [1, 4, 8, 16]
        assert context.pyconv.out_channels == 512
    assert head.merge.conv.weight.shape == (256, 1024, 3, 3)
    assert head.conv_seg.weight.shape == (150, 256, 1, 1)
    assert isinstance(head.dropout, nn.Dropout2d) and head.dropout.p == 0.1
    assert head.align_corners


@pytest.mark.parametrize('norm_cfg', [None, {'type': 'GN', 'num_groups': 4}, {'type': 'BN'}])
def test_every_parameter_learns(norm_cfg, maps):
    head = PyConvHead(**(SMALL | {'norm_cfg': norm_cfg}), in_index=1, dropout_ratio=0).train()
    head(maps).square().mean().backward()
    assert all(p.grad is not None and p.grad.any() for p in head.parameters())
    biases = [m.bias is not None for c in head.modules() if isinstance(c, PyConv2d) for m in c.pyconv_levels]
    assert set(biases) == {norm_cfg is None}


def test_crop_smaller_than_the_pooling(head):
    small = [None, torch.randn(2, 32, 12, 8)]
    assert head(small).shape == (2, 5, 12, 8)  # an image to be tested may have any size
    with pytest.raises(InputError, match='a feature map of 12x8 is smaller than its global pooling of 9x9'):
        head.train()(small)


@pytest.mark.parametrize(('settings', 'got'), [({'pyconv_channels': 96}, '96 and 9'), ({'pool_size': 0}, '64 and 0')])
def test_errors(settings, got):
    with pytest.raises(InputError, match=f'pyconv_channels must be a multiple of 64 .* got {got}'):
        PyConvHead(**(SMALL | settings))


def test_autocast(head, maps):
    with torch.autocast('cpu', dtype=torch.bfloat16):
        out = head(maps)
    expected = head(maps)
    assert out.dtype == torch.bfloat16
    assert (out - expected).abs().max() <= 0.05 * expected.abs().max()
