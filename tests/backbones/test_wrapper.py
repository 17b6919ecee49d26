"""Backbones of other libraries with inception and pyramidal convolutions: as their own class, under their own keys."""

import copy
import warnings

import pytest
import torch
import torch.nn.functional as F
from mmengine.registry import DefaultScope
from torch import nn

import icconv_mm
from icconv_mm.backbones import ICResNet
from icconv_mm.errors import InputError
from icconv_mm.layers import ICConv2d, PyConv2d
from icconv_mm.layers.standardized import ICConvAWS2d, ICConvWS2d
from icconv_mm.ops import use_backend
from icconv_mm.patterns.search import edo_search
from icconv_mm.registry import MODELS

DCN = {'dcn': {'type': 'DCNv2', 'deform_groups': 1}, 'stage_with_dcn': (False, True, True, True)}
PLUGINS = [{'cfg': {'type': 'ContextBlock', 'ratio': 1 / 4}, 'position': 'after_conv3'}]
WS = {'conv_cfg': {'type': 'ConvWS'}, 'norm_cfg': {'type': 'GN', 'num_groups': 4}}
SAC = {'conv_cfg': {'type': 'ConvAWS'}, 'sac': {'type': 'SAC'}, 'stage_with_sac': (False, False, False, True)}
HRNET = {
    f'stage{i}': {
        'num_modules': 1,
        'num_branches': i,
        'block': 'BASIC' if i > 1 else 'BOTTLENECK',
        'num_blocks': (1,) * i,
        'num_channels': tuple(16 * 2**k for k in range(i)),
    }
    for i in range(1, 5)
}
TINY = {'depth': 50, 'base_channels': 16}
# the backbone, its layers that are inception convolutions
BACKBONES = {
    'plain': ({'type': 'mmdet.ResNet', **TINY}, 16),
    'deep stem': ({'type': 'mmseg.ResNetV1c', **TINY, 'stem_channels': 16}, 16),
    'dilated': ({'type': 'mmseg.ResNet', **TINY, 'dilations': (1, 1, 2, 4), 'strides': (1, 2, 1, 1)}, 16),
    'deformable': ({'type': 'mmdet.ResNet', **TINY, **DCN}, 3),
    'plugins': ({'type': 'mmdet.ResNet', **TINY, 'plugins': PLUGINS}, 16),
    'standardised': ({'type': 'mmdet.ResNet', **TINY, **WS}, 16),
    'switchable': ({'type': 'mmdet.DetectoRS_ResNet', **TINY, **SAC}, 13),
    'ResNeXt': ({'type': 'mmpretrain.ResNeXt', **TINY, 'groups': 4, 'width_per_group': 16}, 16),
    'Res2Net': ({'type': 'mmdet.Res2Net', 'depth': 50, 'scales': 4, 'base_width': 8}, 48),
    'ResNeSt': ({'type': 'mmdet.ResNeSt', **TINY, 'radix': 2, 'stem_channels': 32}, 16),
    'RegNet': ({'type': 'mmdet.RegNet', 'arch': 'regnetx_400mf'}, 22),
    'HRNet': ({'type': 'mmdet.HRNet', 'extra': HRNET}, None),
    'SEResNet': ({'type': 'mmpretrain.SEResNet', 'depth': 50, 'base_channels': 32}, 16),
    'CIFAR': ({'type': 'mmpretrain.ResNet_CIFAR', 'depth': 18, 'base_channels': 16}, 16),
    'kernels of 5x5': ({'type': 'mmpose.ViPNAS_ResNet', 'depth': 50}, 4),
    'basic blocks': ({'type': 'mmpose.ResNet', 'depth': 18, 'base_channels': 16}, 16),
}


def build(cfg: dict) -> nn.Module:
    for name in ('mmdet', 'mmseg', 'mmpose', 'mmpretrain'):
        pytest.importorskip(f'{name}.models')
    if {'dcn', 'sac'} & {*cfg, *cfg.get('backbone', ())}:
        pytest.importorskip('mmcv.ops')
    with DefaultScope.overwrite_default_scope((cfg.get('backbone') or cfg)['type'].partition('.')[0]):
        net = MODELS.build(cfg)
    net.eval()
    return net.double()


def outputs(net: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    with torch.no_grad():
        out = net(x)
    return [out] if isinstance(out, torch.Tensor) else list(out)


@pytest.mark.parametrize('name', BACKBONES)
def test_the_dense_pattern_is_the_network(name):
    cfg, layers = BACKBONES[name]
    x = torch.randn(2, 3, 96, 96).double()
    theirs = build(cfg)
    ours = build({'type': 'icconv_mm.ICBackbone', 'backbone': cfg, 'pattern': 'dense'})
    assert type(ours) is type(theirs)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    convolutions = [module for module in ours.modules() if isinstance(module, ICConv2d)]
    assert len(convolutions) == layers if layers else len(convolutions) > 30
    ours.load_state_dict(theirs.state_dict())
    with use_backend('reference'):
        for got, want in zip(outputs(ours, x), outputs(theirs, x), strict=True):
            assert (got - want).abs().max() <= 1e-10 * want.abs().max()
    other = build({'type': 'icconv_mm.ICBackbone', 'backbone': cfg, 'pattern': 'geometric_d4'})
    assert [got.shape for got in outputs(other, x)] == [want.shape for want in outputs(theirs, x)]


@pytest.mark.parametrize('name', BACKBONES)
def test_pyramidal_keeps_shapes_and_the_other_keys(name):
    cfg, _ = BACKBONES[name]
    x = torch.randn(2, 3, 96, 96).double()
    theirs, ours = build(cfg), build({'type': 'icconv_mm.PyConvBackbone', 'backbone': cfg})
    assert type(ours) is type(theirs)
    assert [got.shape for got in outputs(ours, x)] == [want.shape for want in outputs(theirs, x)]
    convolutions = {name: module for name, module in ours.named_modules() if isinstance(module, PyConv2d)}
    assert convolutions
    others = [key for key in theirs.state_dict() if key.rpartition('.')[0] not in convolutions]
    assert others == [key for key in ours.state_dict() if '.pyconv_levels.' not in key]
    ours.train()
    sum(out.square().sum() for out in ours(x)).backward()
    assert all(level.weight.grad is not None for conv in convolutions.values() for level in conv.pyconv_levels)


def test_stages_of_the_pyramids():
    def sides(cfg):
        net = build({'type': 'icconv_mm.PyConvBackbone', 'backbone': cfg})
        return {n: len(m.pyconv_levels) for n, m in net.named_modules() if isinstance(m, PyConv2d)}

    by_name = sides({'type': 'mmseg.ResNet', **TINY, 'dilations': (1, 1, 2, 4), 'strides': (1, 2, 1, 1)})
    assert {name[:6]: levels for name, levels in by_name.items()} == {'layer1': 4, 'layer2': 3, 'layer3': 2}
    by_size = sides({'type': 'mmdet.HRNet', 'extra': HRNET})
    assert by_size['stage4.0.branches.0.0.conv1'] == 4 and by_size['stage4.0.branches.1.0.conv1'] == 3
    assert by_size['stage4.0.branches.2.0.conv1'] == 2 and 'stage4.0.branches.3.0.conv1' not in by_size


def test_pyramids_of_other_tables():
    net = build(
        {
            'type': 'icconv_mm.PyConvBackbone',
            'backbone': {'type': 'mmdet.ResNeXt', 'depth': 50, 'groups': 32, 'base_width': 4},
            'stage_kernels': [(3, 5)] * 4,
            'stage_groups': [(32, 64)] * 4,
        }
    )
    conv = net.layer4[0].conv2
    assert [(c.kernel_size, c.groups, c.stride) for c in conv.pyconv_levels] == [
        ((3, 3), 32, (2, 2)),
        ((5, 5), 64, (2, 2)),
    ]
    default = build(
        {'type': 'icconv_mm.PyConvBackbone', 'backbone': {'type': 'mmdet.ResNeXt', 'depth': 50, 'groups': 32}}
    )
    assert [c.groups for c in default.layer1[0].conv2.pyconv_levels] == [32] * 4  # no fewer than the ResNeXt has


def test_weight_standardized_convolutions_stay_so():
    for name, kind in (('standardised', ICConvWS2d), ('switchable', ICConvAWS2d)):
        net = build({'type': 'icconv_mm.ICBackbone', 'backbone': BACKBONES[name][0], 'pattern': 'geometric_d2'})
        conv = net.layer1[0].conv2
        assert type(conv) is kind
        x = torch.randn(1, conv.in_channels, 9, 9).double()
        before = conv(x)
        with torch.no_grad():
            conv.weight.add_(1)
        torch.testing.assert_close(conv(x), before)


def test_a_pattern_of_the_whole_network_passes_over_deformable_layers(published_patterns):
    path = published_patterns / 'detection/ic_resnet50_k9.json'
    cfg = {'type': 'mmdet.ResNet', 'depth': 50, **DCN}
    whole = ICResNet(50, path)
    for net in (
        build({'type': 'icconv_mm.ICBackbone', 'backbone': cfg, 'pattern': str(path)}),
        build({'type': 'icconv_mm.ICResNet', 'depth': 50, 'pattern': str(path), **DCN}),
    ):
        for block, expected in zip(net.layer1, whole.layer1):
            assert block.conv2.pattern == expected.conv2.pattern
        assert not isinstance(net.layer2[0].conv2, ICConv2d)


def test_behaves_as_the_wrapped_backbone(tmp_path):
    cfg = {'type': 'mmdet.ResNet', **TINY, 'frozen_stages': 1, 'norm_eval': True, 'with_cp': True}
    net = build({'type': 'icconv_mm.ICBackbone', 'backbone': cfg, 'pattern': 'geometric_d4'})
    net.train()
    learning = {name for name, parameter in net.named_parameters() if parameter.requires_grad}
    assert 'layer2.0.conv2.weight' in learning and not any(name.startswith('layer1') for name in learning)
    assert not net.layer3[0].bn1.training and net.layer3[0].with_cp
    torch.save(build(cfg).state_dict(), path := str(tmp_path / 'net.pth'))
    inner = {**cfg, 'init_cfg': {'type': 'Pretrained', 'checkpoint': path}}
    for settings in (
        {'backbone': inner},
        {'backbone': cfg, 'init_cfg': inner['init_cfg']},
        {'backbone': cfg, 'pretrained': path},
    ):
        net = build({'type': 'icconv_mm.ICBackbone', 'pattern': 'dense', **settings})
        net.init_weights()
        assert torch.equal(net.layer4[0].conv2.weight, torch.load(path)['layer4.0.conv2.weight'])
    frozen = build({'type': 'icconv_mm.PyConvBackbone', 'backbone': cfg}).layer1[0].conv2
    assert not any(parameter.requires_grad for parameter in frozen.parameters())


@pytest.mark.parametrize(
    'settings',
    [{'type': 'icconv_mm.PyConvBackbone'}, {'type': 'icconv_mm.ICBackbone', 'supernet_d_max': 2}],
    ids=['pyramids', 'supernet'],
)
def test_dense_weights_do_not_leave_layers_random(tmp_path, settings):
    cfg = {'type': 'mmdet.ResNet', **TINY}
    torch.save(build(cfg).state_dict(), path := str(tmp_path / 'net.pth'))
    net = build({**settings, 'backbone': cfg, 'pretrained': path})
    with pytest.raises(ValueError, match=r'layer1\.0\.conv2\.weight of the checkpoint is a dense 3x3 kernel'):
        net.init_weights()
    torch.save(build({**settings, 'backbone': cfg}).state_dict(), path)
    net.init_weights()
    assert torch.equal(net.layer1[0].conv1.weight, torch.load(path)['layer1.0.conv1.weight'])


def test_dense_weights_fit_the_smallest_supernet(tmp_path):
    """Whose kernels are of 3x3."""
    cfg = {'type': 'mmdet.ResNet', **TINY}
    torch.save((dense := build(cfg)).state_dict(), path := str(tmp_path / 'net.pth'))
    net = build({'type': 'icconv_mm.ICBackbone', 'supernet_d_max': 1, 'backbone': cfg, 'pretrained': path})
    net.init_weights()
    assert torch.equal(net.layer1[0].conv2.weight, dense.layer1[0].conv2.weight)


def test_a_network_that_slices_its_image():
    net = build({'type': 'icconv_mm.PyConvBackbone', 'backbone': {'type': 'mmdet.CSPDarknet', 'widen_factor': 0.25}})
    assert any(isinstance(layer, PyConv2d) for layer in net.modules())


def test_the_weights_of_the_wrapper_win_and_it_says_so(recwarn):
    inner = {'type': 'mmdet.ResNet', **TINY, 'init_cfg': {'type': 'Pretrained', 'checkpoint': 'inner.pth'}}
    settings = {'backbone': inner, 'pattern': 'dense', 'init_cfg': {'type': 'Pretrained', 'checkpoint': 'outer.pth'}}
    recwarn.clear()
    net = build({'type': 'icconv_mm.ICBackbone', **settings})
    assert net.init_cfg['checkpoint'] == 'outer.pth'
    said = [str(w.message) for w in recwarn if 'is ignored: its wrapper' in str(w.message)]
    assert len(said) == 1 and 'inner.pth' in said[0] and 'outer.pth' in said[0] and 'mmdet.ResNet' in said[0]


@pytest.mark.parametrize(('name', 'layers'), [('resnet18', 16), ('regnet_x_400mf', 22), ('mobilenet_v2', 17)])
def test_a_built_network_and_the_search(name, layers):
    """The supernet computes what the network does, and what is found in it takes its place."""
    theirs = getattr(pytest.importorskip('torchvision').models, name)().eval()
    x = torch.randn(1, 3, 64, 64)
    expected = theirs(x)
    net = icconv_mm.ICBackbone(copy.deepcopy(theirs), supernet_d_max=2)
    torch.testing.assert_close(net(x), expected, rtol=0, atol=1e-5 * max(1, expected.abs().max().item()))
    wide = [conv for conv in net.modules() if isinstance(conv, nn.Conv2d) and conv.kernel_size == (5, 5)]
    assert len(wide) == layers
    with torch.no_grad():
        for conv in wide:
            conv.weight += 0.1 * torch.randn_like(conv.weight)
    patterns = edo_search(net, 2)
    assert max(pattern.max_dilation for pattern in patterns) == 2
    net = icconv_mm.ICBackbone(net, patterns)
    layer_patterns = [layer.pattern for layer in net.modules() if isinstance(layer, ICConv2d)]
    assert len(layer_patterns) == layers and (
        layer_patterns == patterns or name.startswith('regnet')
    )  # which counts in groups
    assert net(x).shape == expected.shape
    shapes = [{key: value.shape for key, value in model.state_dict().items()} for model in (net, theirs)]
    assert shapes[0] == shapes[1]
    if name == 'resnet18':
        assert isinstance(icconv_mm.PyConvBackbone(theirs).layer1[0].conv1, PyConv2d)


@pytest.mark.parametrize('kind', ['ICBackbone', 'PyConvBackbone'])
def test_deploys(kind):
    net = build({'type': f'icconv_mm.{kind}', 'backbone': BACKBONES['plain'][0]} | PATTERN[kind])
    x = torch.randn(1, 3, 64, 64).double()
    for got, want in zip(outputs(icconv_mm.deploy(net), x), outputs(net, x), strict=True):
        assert (got - want).abs().max() <= 1e-10 * want.abs().max()


PATTERN = {'ICBackbone': {'pattern': 'geometric_d4'}, 'PyConvBackbone': {}}


@pytest.mark.parametrize(
    ('kind', 'settings', 'message'),
    [
        ('ICBackbone', {}, 'ICBackbone needs either a pattern or supernet_d_max, got neither'),
        ('ICBackbone', {'pattern': 'dense', 'filter': 'nothing'}, "ResNet: the filter 'nothing' selects no 3x3 convo"),
        ('ICBackbone', {'pattern': 'dense', 'filter': '('}, r"filter '\(' is not a regular expression: missing"),
        ('ICBackbone', {'pattern': [[[64, 1, 1]]] * 8}, r'layer 2 \(layer2.0.conv1\): the pattern sums to 64, exp'),
        (
            'PyConvBackbone',
            {'stage_groups': [(1, 3, 3, 3), (1, 4, 8), (1, 4), (1,)]},
            'layer1.0.conv1: level 1: 3 groups',
        ),
        ('PyConvBackbone', {'stage_kernels': [(3,)]}, 'for each of the 4 stages of the backbone, got 1 and 4'),
        ('ICBackbone', {'pattern': 'dense', 'pretrained': 'a', 'init_cfg': {'type': 'x'}}, 'both say where weights'),
        ('PyConvBackbone', {'pretrained': 'a'}, 'ResNet: init_cfg would not be read'),
    ],
)
def test_bad_input(kind, settings, message):
    torchvision = pytest.importorskip('torchvision')
    net = torchvision.models.ResNet(torchvision.models.resnet.BasicBlock, [1, 1, 1, 1])
    with pytest.raises(ValueError, match=message):
        getattr(icconv_mm, kind)(net, **settings)


@pytest.mark.parametrize(
    ('kind', 'has'),
    [
        ('SwinTransformer', '1 Conv2d of 4x4'),
        ('ConvNeXt', '1 Conv2d of 4x4, 3 Conv2d of 2x2, 18 Conv2d of 7x7'),  # no supernet: its kernels keep all taps
    ],
)
def test_a_network_without_3x3_convolutions_is_told_what_it_has(kind, has):
    pytest.importorskip('mmpretrain.models')
    backbone = {'type': f'mmpretrain.{kind}', 'arch': 'tiny'}
    for wrapper, settings in PATTERN.items():
        with pytest.raises(ValueError, match=f'{kind}: no 3x3 convolution to convert; it has {has}$'):
            build({'type': f'icconv_mm.{wrapper}', 'backbone': backbone, **settings})


class Routed(nn.Module):
    """A 3x3 convolution of a class of its own, with a small network that reads its input first."""

    def __init__(self, channels):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(channels, channels, 3, 3) / 30)
        self.route = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1, groups=channels), nn.Sigmoid())

    def forward(self, x):
        return F.conv2d(x, self.weight, padding=1) * self.route(x)


class Converting(Routed):
    """The same, which knows what takes its place."""

    kernel_size, groups = (3, 3), 1

    @property
    def out_channels(self):
        return len(self.weight)

    def to_inception(self, pattern):
        conv = ICConv2d(self.out_channels, self.out_channels, pattern, bias=False)
        conv.weight = self.weight
        return conv


def test_classes_that_stay_dense_are_named(caplog):
    net = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), Routed(8))
    with (
        caplog.at_level('INFO'),
        pytest.warns(UserWarning, match=r'1 of 3 convolutions.*% .*\(Routed; the first: 1\)'),
    ):
        icconv_mm.ICBackbone(net, 'geometric_d2')
    assert 'Sequential: 2 convolutions converted; left: 1 Routed' in caplog.text
    net = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), *(Routed(8) for _ in range(6)))
    with pytest.raises(InputError, match=r'6 of 13 convolutions .* which need a method to_inception; or give a filter'):
        icconv_mm.ICBackbone(net, 'geometric_d2')
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        icconv_mm.ICBackbone(net, 'geometric_d2', filter='^0$')


def test_a_class_of_ones_own_says_what_takes_its_place():
    net, x = nn.Sequential(nn.Conv2d(3, 8, 3), Converting(8)), torch.randn(1, 3, 16, 16)
    expected = F.conv2d(net[0](x), net[1].weight, padding=1)
    converted = icconv_mm.ICBackbone(net, 'dense')
    assert isinstance(converted[1], ICConv2d)
    torch.testing.assert_close(converted(x), expected)
