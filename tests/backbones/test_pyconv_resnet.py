import re

import pytest
import torch

from icconv_mm.backbones import PyConvHGResNet, PyConvResNet
from icconv_mm.backbones.pyconv_resnet import STAGE_GROUPS
from icconv_mm.backbones.resnet import ResNet
from icconv_mm.layers import PyConv2d

# channels and groups of an eighth of the network
TINY = {'base_channels': 16, 'stage_groups': [(1, 2, 4, 4), (1, 2, 4), (1, 4), (1,)]}
TINY_HG = {'base_channels': 16, 'stage_groups': [(4, 4, 4, 4), (4, 8, 8), (4, 8), (4,)]}


@pytest.fixture
def x():
    return torch.randn(2, 3, 64, 96)


def on_meta(cls, *args, **kwargs):
    with torch.device('meta'):
        return cls(*args, **kwargs)


@pytest.mark.parametrize(
    ('depth', 'settings', 'millions'),
    [
        (18, {}, 5.91),
        (34, {}, 11.09),
        (18, {'two_pyconvs': True}, 11.21),
        (34, {'two_pyconvs': True}, 20.44),
        (50, {}, 24.85),
    ],
)
def test_parameters(depth, settings, millions):
    """With a classifier of 1000 classes, as published."""
    net = on_meta(PyConvResNet, depth, **settings)
    count = sum(p.numel() for p in net.parameters()) + 1000 * net.out_channels[-1] + 1000
    assert round(count / 1e6, 2) == millions


@pytest.mark.parametrize(('cls', 'settings'), [(PyConvResNet, TINY), (PyConvHGResNet, TINY_HG)])
def test_has_the_outputs_of_a_resnet(cls, settings, x):
    net = cls(50, **settings).eval()
    expected = [tuple(out.shape) for out in ResNet(50, base_channels=16).eval()(x)]
    assert [tuple(out.shape) for out in net(x)] == expected
    assert net.out_channels == [64, 128, 256, 512]


def test_keys_do_not_depend_on_the_strides():
    """A checkpoint of the classifier serves every output stride."""
    keys = list(on_meta(PyConvResNet, 50).state_dict())
    assert 'layer1.0.downsample.1.weight' in keys and 'layer1.0.downsample.2.running_var' in keys
    assert 'layer1.0.conv2.pyconv_levels.3.weight' in keys and 'layer4.0.conv2.weight' in keys
    assert not any(key.startswith('layer1.0.downsample.0') for key in keys)
    for settings in ({'output_stride': 8}, {'strides': (1, 1, 1, 1)}):
        assert list(on_meta(PyConvResNet, 50, **settings).state_dict()) == keys


@pytest.mark.parametrize('cls', [PyConvResNet, PyConvHGResNet, ResNet])
@pytest.mark.parametrize(('output_stride', 'dilations'), [(8, (1, 1, 2, 4)), (16, (1, 1, 1, 2)), (32, (1, 1, 1, 1))])
def test_output_stride(cls, output_stride, dilations):
    net = on_meta(cls, 50, output_stride=output_stride)
    x = torch.empty(1, 3, 65, 97, device='meta')
    assert net(x)[-1].shape[2:] == (64 // output_stride + 1, 96 // output_stride + 1)
    assert net.dilations == dilations
    for stage, dilation in enumerate(dilations, 1):
        for block in getattr(net, f'layer{stage}'):  # the first as well
            convs = block.conv2.pyconv_levels if isinstance(block.conv2, PyConv2d) else [block.conv2]
            assert {conv.dilation for conv in convs} == {(dilation, dilation)}
    if cls is not ResNet:  # a dilated stage keeps the pooling of its shortcut
        pools = [getattr(net, f'layer{stage}')[0].downsample[0] for stage in range(1, 5)]
        assert [pool.stride for pool in pools] == [2, 2, 2 if output_stride > 8 else 1, 2 if output_stride > 16 else 1]


def test_strides_count_as_those_of_a_resnet():
    """What a config sets on top of the backbone file means the same for both."""
    settings = {'num_stages': 3, 'strides': (1, 2, 2), 'dilations': (1, 1, 1), 'out_indices': (2,)}
    x = torch.empty(1, 3, 64, 64, device='meta')
    shapes = [on_meta(cls, 18, **settings)(x)[0].shape for cls in (PyConvResNet, ResNet)]
    assert shapes[0] == shapes[1] == (1, 256, 4, 4)


def test_initialization():
    net = PyConvResNet(18)
    net.init_weights()
    weight = net.layer1[0].conv1.pyconv_levels[0].weight
    assert weight.std().item() == pytest.approx((2 / (16 * 9)) ** 0.5, rel=0.05)  # He, fan out
    assert not net.layer3[0].bn2.weight.any() and net.layer3[0].bn1.weight.all()


def test_pretrained_classifier_loads(tmp_path):
    """A converted classifier, or what mmpretrain trained: backbone and head in one file."""
    source = PyConvResNet(18, **TINY)
    state = {f'backbone.{key}': value for key, value in source.state_dict().items()}
    torch.save({'state_dict': state | {'head.fc.weight': torch.ones(10, 128)}}, tmp_path / 'net.pth')
    for init_cfg in ({}, {'prefix': 'backbone.'}):
        checkpoint = {'type': 'Pretrained', 'checkpoint': str(tmp_path / 'net.pth')}
        net = PyConvResNet(18, **TINY, output_stride=8, init_cfg=checkpoint | init_cfg)
        net.init_weights()
        assert all(torch.equal(value, source.state_dict()[key]) for key, value in net.state_dict().items())


@pytest.mark.parametrize('prefix', ['', 'backbone.'])
def test_official_checkpoints_name_the_converter(prefix):
    net = PyConvResNet(18, **TINY)
    state = {
        prefix + re.sub(r'pyconv_levels\.(\d)', lambda match: f'conv2_{int(match[1]) + 1}', key): value
        for key, value in net.state_dict().items()
    }
    with pytest.raises(ValueError, match=r'conv2_1.*official PyConv checkpoint.*tools/convert_checkpoint\.py'):
        net.load_state_dict(state)


@pytest.mark.parametrize(
    ('cls', 'settings', 'message'),
    [
        (PyConvResNet, {'depth': 20}, r'depth must be one of \[18, 34, 50, 101, 152\], got 20'),
        (PyConvHGResNet, {'depth': 18}, r'depth must be one of \[50, 101, 152\], got 18'),
        (PyConvResNet, {'avg_down': True}, 'pools its shortcuts by maximum: avg_down must be False'),
        (PyConvResNet, {'depth': 50, 'two_pyconvs': True}, r'needs basic blocks \(depth 18 or 34\), got depth 50'),
        (
            PyConvResNet,
            {'stage_groups': [(1,)]},
            'must have one entry for each of the 4 stages of the backbone, got 4 and 1',
        ),
        (PyConvResNet, {'stage_groups': [(1, 4)] * 4}, r'\[0\] has 4 levels, \(3, 5, 7, 9\), and .* 2, \(1, 4\): give'),
        (
            PyConvResNet,
            {'base_channels': 16, 'stage_groups': STAGE_GROUPS},
            'layer1: level 2: 8 groups do not divide its 16 input and 4 output',
        ),
        (PyConvResNet, {'base_channels': 3}, 'layer1: 3 channels are too few for 4 levels'),
        (ResNet, {'output_stride': 4}, r'output_stride must be one of \[8, 16, 32\], got 4'),
    ],
)
def test_errors(cls, settings, message):
    with pytest.raises(ValueError, match=message):
        cls(**({'depth': 18} | settings))
