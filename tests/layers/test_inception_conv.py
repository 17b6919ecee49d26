import copy
import inspect
import pickle

import pytest
import torch
from torch import nn

from icconv_mm.layers import ICConv2d, ICConv2dReLU
from icconv_mm.ops import inception_conv2d, inception_conv2d_relu

PATTERN = [(5, 1, 1), (2, 2, 1), (1, 1, 3)]


def test_is_the_operator():
    conv = ICConv2d(4, 8, PATTERN, stride=2, groups=2, bias=True)
    x = torch.randn(2, 4, 9, 7)
    torch.testing.assert_close(conv(x), inception_conv2d(x, conv.weight, conv.bias, PATTERN, 2, 2))


@pytest.mark.parametrize('dilation', [2, (2, 3)])
def test_the_dilation_of_the_stage_multiplies(dilation):
    h, w = (dilation, dilation) if isinstance(dilation, int) else dilation
    conv = ICConv2d(4, 8, PATTERN, dilation=dilation)
    x = torch.randn(2, 4, 9, 7)
    expected = inception_conv2d(x, conv.weight, None, [(n, a * h, b * w) for n, a, b in PATTERN])
    torch.testing.assert_close(conv(x), expected)
    assert list(conv.pattern) == PATTERN


def test_a_pattern_may_count_in_groups():
    conv = ICConv2d(8, 16, [(3, 1, 1), (1, 2, 2)], groups=4)
    assert list(conv.pattern) == [(12, 1, 1), (4, 2, 2)]


@pytest.mark.parametrize('kind', ['icconv_mm.ICConv2d', ICConv2d])
@pytest.mark.parametrize('dilation', [1, 2])
def test_is_a_conv_cfg(kind, dilation):
    """In mmcv's modules, which give what ``nn.Conv2d`` takes, in its order."""
    cnn = pytest.importorskip('mmcv.cnn')
    cfg = dict(type=kind, pattern=PATTERN)
    settings = dict(stride=2, padding=dilation, dilation=dilation, groups=2)
    module = cnn.ConvModule(4, 8, 3, **settings, conv_cfg=cfg, norm_cfg=dict(type='BN'))
    assert type(module.conv) is ICConv2d and list(module.conv.pattern) == PATTERN and module.conv.bias is None
    assert module(torch.randn(2, 4, 9, 7)).shape == (2, 8, 5, 4)
    given = cnn.build_conv_layer(cfg, 4, 8, 3, 2, dilation, dilation, 2, True)
    expected = ICConv2d(4, 8, PATTERN, stride=2, groups=2, dilation=dilation, bias=True)
    assert repr(given) == repr(expected)
    given.load_state_dict(expected.state_dict())
    x = torch.randn(2, 4, 9, 7)
    assert torch.equal(given(x), expected(x))
    assert repr(cnn.build_conv_layer(cfg, 4, 8, 3)) == repr(ICConv2d(4, 8, PATTERN))
    by_name = cnn.build_conv_layer(cfg, in_channels=4, out_channels=8, kernel_size=3)
    assert repr(by_name) == repr(ICConv2d(4, 8, PATTERN))


def test_a_conv_cfg_that_does_not_fit():
    cnn = pytest.importorskip('mmcv.cnn')
    cfg = dict(type='icconv_mm.ICConv2d', pattern=PATTERN)
    with pytest.raises(ValueError, match='needs kernel size 3, got 1'):
        cnn.ConvModule(4, 8, 1, conv_cfg=cfg)
    with pytest.raises(ValueError, match=r'padding must be \(1, 1\), which keeps the size, got 0'):
        cnn.ConvModule(4, 8, 3, conv_cfg=cfg)


def test_two_orders_of_arguments():
    by_place = ICConv2d(4, 8, PATTERN, 3, 2, 2, 3, True)
    assert repr(by_place) == repr(ICConv2d(4, 8, 3, 2, 3, 3, 2, True, pattern=PATTERN))
    assert [*inspect.signature(ICConv2d).parameters][:4] == ['in_channels', 'out_channels', 'pattern', 'kernel_size']
    with pytest.raises(TypeError, match="multiple values for argument 'stride'"):
        ICConv2d(4, 8, 3, 1, pattern=PATTERN, stride=1)
    with pytest.raises(ValueError, match=r"padding must be \(2, 2\), which keeps the size, got 'same'"):
        ICConv2d(4, 8, PATTERN, dilation=2, padding='same')


def test_norms_fold_into_it():
    """mmcv's folding takes it for the convolution that it is."""
    fuse_conv_bn = pytest.importorskip('mmcv.cnn').fuse_conv_bn
    net = nn.Sequential(ICConv2d(4, 8, PATTERN), nn.BatchNorm2d(8)).eval()
    net[1].running_mean.uniform_(-1, 1), net[1].running_var.uniform_(0.5, 2)
    x = torch.randn(2, 4, 9, 7)
    expected = net(x)
    fused = fuse_conv_bn(copy.deepcopy(net))
    assert isinstance(fused[0], ICConv2d) and isinstance(fused[1], nn.Identity)
    torch.testing.assert_close(fused(x), expected)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'kernel_size': 5}, 'needs kernel size 3, got 5'),
        ({'stride': (1, 2)}, r'stride must be the same on both axes, got \(1, 2\)'),
        ({'out_channels': 9}, 'sums to 8, expected 9 channels'),
        ({'out_channels': 16, 'groups': 4}, 'sums to 8, expected 16 channels or 4 groups'),
        ({'pattern': [(8, 1, 0)]}, 'a dilation must be at least 1'),
        ({'pattern': 'geometric_d4'}, r"a layer is a table of runs .*, got 'geometric_d4'; names and files"),
    ],
)
def test_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        ICConv2d(**({'in_channels': 4, 'out_channels': 8, 'pattern': PATTERN} | arguments))


def test_is_one_step_of_a_symbolic_trace():
    conv, x = ICConv2d(4, 8, PATTERN, bias=True), torch.randn(2, 4, 9, 7)
    for layer, operator in (
        (conv, inception_conv2d),
        (ICConv2dReLU.of(conv.requires_grad_(False)), inception_conv2d_relu),
    ):
        traced = torch.fx.symbolic_trace(nn.Sequential(layer))
        assert [node.target for node in traced.graph.nodes if node.op == 'call_function'] == [operator]
        for other in (traced, pickle.loads(pickle.dumps(traced))):
            torch.testing.assert_close(other(x), layer(x))
