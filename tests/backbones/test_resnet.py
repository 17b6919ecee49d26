"""The skeleton against the ResNets of mmdet, mmseg and torchvision, and its options."""

from functools import partial

import pytest
import torch
import torchvision
from mmengine.model import BaseModule
from mmengine.registry import DefaultScope
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.profiler import ProfilerActivity, profile
from torchvision.models.feature_extraction import create_feature_extractor

from icconv_mm.backbones import ICResNet, PyConvResNet
from icconv_mm.backbones.resnet import BasicBlock, ResNet
from icconv_mm.checkpoints.matching import ArchitectureMismatchError
from icconv_mm.errors import InputError

TINY = {'base_channels': 8}
PLUGINS = [
    {'cfg': {'type': 'ContextBlock', 'ratio': 1 / 4}, 'stages': (False, True, True, False), 'position': 'after_conv3'},
    {'cfg': {'type': 'NonLocal2d', 'postfix': '_a'}, 'stages': (True, False, False, False), 'position': 'after_conv2'},
    {'cfg': {'type': 'NonLocal2d', 'postfix': '_b'}, 'stages': (True, False, False, False), 'position': 'after_conv2'},
]


@pytest.fixture
def x():
    return torch.randn(2, 3, 64, 48)


def randomize_norms(net: nn.Module) -> nn.Module:
    """Norms of a fresh network are the identity, which hides mistakes."""
    for module in net.modules():
        if isinstance(module, _BatchNorm):
            module.running_mean.uniform_(-0.5, 0.5), module.running_var.uniform_(0.5, 2)
        if isinstance(module, (_BatchNorm, nn.GroupNorm)):
            nn.init.uniform_(module.weight, 0.5, 1.5), nn.init.uniform_(module.bias, -0.5, 0.5)
    return net


def assert_same_network(ours: ResNet, theirs: nn.Module, x):
    """Same keys in the same order, same outputs."""
    ours.eval(), randomize_norms(theirs).eval()
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict())
    got, expected = ours(x), theirs(x)
    assert len(got) == len(expected)
    for one, other in zip(got, expected):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    'settings',
    [
        {'depth': 18},
        {'depth': 34},
        {'depth': 50},
        {'depth': 50, 'style': 'caffe'},
        {'depth': 18, 'deep_stem': True, 'avg_down': True},
        {'depth': 50, 'deep_stem': True, 'avg_down': True, 'stem_channels': 16},
        {'depth': 50, 'strides': (1, 2, 2, 1), 'dilations': (1, 1, 1, 2)},
        {'depth': 50, 'strides': (1, 2, 1, 1), 'dilations': (1, 1, 2, 4)},
        {'depth': 18, 'num_stages': 3, 'strides': (1, 2, 2), 'dilations': (1, 1, 1), 'out_indices': (2,)},
        {'depth': 18, 'norm_cfg': {'type': 'GN', 'num_groups': 4}},
        {'depth': 18, 'norm_cfg': {'type': 'SyncBN', 'requires_grad': False}},
        {'depth': 18, 'in_channels': 5, 'out_indices': (1, 3)},
        {'depth': 50, 'conv_cfg': {'type': 'ConvWS'}, 'norm_cfg': {'type': 'GN', 'num_groups': 4}},
        {'depth': 50, 'dcn': {'type': 'DCNv2', 'deform_groups': 2}, 'stage_with_dcn': (False, False, True, True)},
        {'depth': 50, 'plugins': PLUGINS},
    ],
    ids=str,
)
def test_is_the_resnet_of_mmdet(settings, x):
    mmdet = pytest.importorskip('mmdet.models.backbones')
    if 'dcn' in settings:
        pytest.importorskip('mmcv.ops')
    if 'in_channels' in settings:
        x = torch.randn(2, 5, 64, 48)
    ours, theirs = ResNet(**TINY, **settings), mmdet.ResNet(**TINY, **settings)
    assert [p.requires_grad for p in ours.parameters()] == [p.requires_grad for p in theirs.parameters()]
    assert_same_network(ours, theirs, x)


def test_is_the_resnext_of_mmdet(x):
    mmdet = pytest.importorskip('mmdet.models.backbones')
    settings = {'depth': 50, 'groups': 4, 'base_width': 4}
    assert_same_network(ResNet(**TINY, **settings), mmdet.ResNeXt(**TINY, **settings), x)


@pytest.mark.parametrize(
    ('depth', 'multi_grid'), [(50, None), (50, (1, 2, 4)), (18, None), (18, (1, 2)), (34, None)], ids=str
)
def test_dilates_as_mmseg_does(depth, multi_grid, x):
    mmseg = pytest.importorskip('mmseg.models.backbones')
    settings = {
        'depth': depth,
        'strides': (1, 2, 1, 1),
        'dilations': (1, 1, 2, 4),
        'contract_dilation': True,
        'multi_grid': multi_grid,
        'stem_channels': 8,
    }
    assert_same_network(ResNet(**TINY, **settings), mmseg.ResNet(**TINY, **settings), x)


@pytest.mark.parametrize(
    ('name', 'settings'),
    [
        ('ResNet', {'depth': 50, 'drop_path_rate': 0.5, 'base_channels': 16, 'expansion': 2}),
        ('ResNeXt', {'depth': 50, 'groups': 4, 'width_per_group': 4, **TINY}),
    ],
)
def test_takes_the_options_of_mmpretrain(name, settings, x):
    mmpretrain = pytest.importorskip('mmpretrain.models.backbones')
    theirs = getattr(mmpretrain, name)(**settings, stem_channels=8)
    ours = ResNet(**settings, stem_channels=8, out_indices=(3,))
    assert_same_network(ours, theirs, x)
    rates = [
        [getattr(block.drop_path, 'drop_prob', 0) for i in range(1, 5) for block in getattr(net, f'layer{i}')]
        for net in (ours, theirs)
    ]
    assert rates[0] == pytest.approx(rates[1])


@pytest.mark.parametrize('depth', [50, 101, 152])
def test_layers_of_the_learning_rate_are_those_of_mmpretrain(depth):
    mmpretrain = pytest.importorskip('mmpretrain.models.backbones')
    ours, theirs = ResNet(depth, **TINY), mmpretrain.ResNet(depth, **TINY)
    names = [f'backbone.{name}' for name, _ in ours.named_parameters()] + ['head.fc.weight']
    got = [ours.get_layer_depth(name, 'backbone.') for name in names]
    assert got == [theirs.get_layer_depth(name, 'backbone.') for name in names]


def test_stochastic_depth_skips_the_convolutions(x):
    net = ResNet(18, **TINY, drop_path_rate=1 - 1e-9, norm_eval=True).train()
    block = net.layer4[-1]
    feature = torch.randn(2, 64, 4, 4).relu()
    assert torch.equal(block(feature), feature) and not torch.equal(block.eval()(feature), feature)


@pytest.mark.parametrize('training', [False, True])
def test_allocates_no_more_maps_than_torchvision(training):
    """A count, not a time: a sum that is not in place allocates a map more in each of sixteen blocks."""
    # of an image of another format the four maps would be copied back to it
    x = torch.randn(2, 3, 128, 128).contiguous(memory_format=torch.channels_last)
    smallest = 2 * 64 * 32 * 32 * 4  # bytes of the maps within a bottleneck of the first stage

    def run(net):
        out = net(x)
        if training:
            (out[-1] if isinstance(out, tuple) else out).sum().backward()

    def allocations(net):
        run(net.train(training))  # what is allocated once, and gradients
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
            run(net)
        events = profiler.profiler.kineto_results.events()
        return sum(event.name() == '[memory]' and event.nbytes() >= smallest for event in events)

    theirs = allocations(torchvision.models.resnet50())
    assert theirs > 60
    for ours in (ResNet(50), ICResNet(50, 'dense')):
        assert allocations(ours) <= theirs


def test_residual_in_place_has_all_derivatives():
    net = ResNet(50, base_channels=1, stem_channels=2, norm_eval=True, num_stages=1, strides=[1], dilations=[1])
    net = net.double().train()
    x = torch.randn(1, 3, 8, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: net(x)[0], x)
    assert torch.autograd.gradgradcheck(lambda x: net(x)[0], x)


def test_norms_have_the_names_of_the_libraries():
    net = ResNet(50, **TINY, norm_cfg={'type': 'GN', 'num_groups': 4})
    block = net.layer1[0]
    assert net.norm1 is net.gn1 and (block.norm1, block.norm2, block.norm3) == (block.gn1, block.gn2, block.gn3)
    assert not hasattr(ResNet(18, **TINY).layer1[0], 'norm3')


@pytest.mark.parametrize('scope', ['mmdet', 'mmseg', 'mmpose', 'mmpretrain', 'icconv_mm'])
def test_default_outputs_are_those_of_the_library(scope):
    with DefaultScope.overwrite_default_scope(scope):
        assert ResNet(18, **TINY).out_indices == ((3,) if scope in ('mmpose', 'mmpretrain') else (0, 1, 2, 3))
        assert ResNet(18, **TINY, out_indices=(1, 2)).out_indices == (1, 2)


def test_pretrained_is_an_init_cfg(tmp_path):
    source = ResNet(18, **TINY)
    torch.save(source.state_dict(), path := str(tmp_path / 'net.pth'))
    with pytest.warns(UserWarning, match='pretrained is deprecated, please use "init_cfg" instead'):
        net = ResNet(18, **TINY, pretrained=path)
    assert net.init_cfg == {'type': 'Pretrained', 'checkpoint': path}
    net.init_weights()
    assert all(torch.equal(value, source.state_dict()[key]) for key, value in net.state_dict().items())
    with pytest.warns(UserWarning, match='pretrained is deprecated'):
        assert ResNet(18, **TINY, pretrained=tmp_path / 'net.pth').init_cfg == net.init_cfg
    with pytest.raises(ValueError, match='both say where weights come from: give one'):
        ResNet(18, pretrained=path, init_cfg=net.init_cfg)
    with pytest.raises(TypeError, match='pretrained must be a path, a URL or None, got True'):
        ResNet(18, pretrained=True)


@pytest.mark.parametrize(
    ('name', 'settings'),
    [
        ('resnet18', {'depth': 18}),
        ('resnet152', {'depth': 152}),
        ('resnext50_32x4d', {'depth': 50, 'groups': 32, 'base_width': 4}),
        ('resnext101_32x8d', {'depth': 101, 'groups': 32, 'base_width': 8}),
        ('wide_resnet50_2', {'depth': 50, 'base_width': 128}),
    ],
)
def test_has_the_keys_and_shapes_of_torchvision(name, settings):
    with torch.device('meta'):
        ours, theirs = ResNet(**settings), getattr(torchvision.models, name)()
    shapes = [{k: v.shape for k, v in net.state_dict().items() if not k.startswith('fc.')} for net in (ours, theirs)]
    assert shapes[0] == shapes[1]
    assert ours.out_channels[-1] == theirs.fc.in_features


@pytest.mark.parametrize('deep_stem', [False, True])
@pytest.mark.parametrize('frozen', [-1, 0, 1, 4])
def test_frozen_stages_do_not_learn(frozen, deep_stem, x):
    net = ResNet(18, **TINY, frozen_stages=frozen, deep_stem=deep_stem)
    net.train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    sum(out.sum() for out in net(x)).backward() if frozen < 4 else net(x)
    for name, parameter in net.named_parameters():
        stage = int(name[5]) if name.startswith('layer') else 0
        assert (parameter.grad is None) == (stage <= frozen), name
    for name, value in net.state_dict().items():
        if name.endswith('running_mean'):
            stage = int(name[5]) if name.startswith('layer') else 0
            assert torch.equal(value, before[name]) == (stage <= frozen), name


def test_norm_eval_keeps_the_statistics(x):
    net = ResNet(18, **TINY, norm_eval=True).train()
    assert net.training and not any(m.training for m in net.modules() if isinstance(m, _BatchNorm))
    before = net.bn1.running_mean.clone()
    net(x)
    assert torch.equal(net.bn1.running_mean, before)
    assert all(m.training for m in ResNet(18, **TINY).train().modules())


def test_checkpointing_gives_the_same_gradients(x):
    net = ResNet(18, **TINY, norm_eval=True).train()
    grads = []
    for with_cp in (False, True):
        for block in (m for m in net.modules() if isinstance(m, BasicBlock)):
            block.with_cp = with_cp
        net.zero_grad()
        net(x)[-1].square().sum().backward()
        grads.append([p.grad.clone() for p in net.parameters()])
    torch.testing.assert_close(*grads)
    assert all(m.with_cp for m in ResNet(18, **TINY, with_cp=True).modules() if isinstance(m, BasicBlock))


def test_initialization(x):
    net = ResNet(50, **TINY)
    net.init_weights()
    assert not net.layer1[0].bn3.weight.any() and not net.layer4[-1].bn3.weight.any()
    assert (net.layer1[0].bn2.weight == 1).all()
    weight = net.layer2[0].conv2.weight
    assert weight.std().item() == pytest.approx((2 / (weight.shape[0] * 9)) ** 0.5, rel=0.1)  # He, fan out
    nn.init.ones_(net.layer1[0].bn3.weight)
    net.init_weights()  # a second call, as mmengine makes for nested modules, changes nothing
    assert net.layer1[0].bn3.weight.all()

    ResNet(18, **TINY, norm_cfg=dict(type='IN')).init_weights()  # whose norms have no weights
    net = ResNet(18, **TINY, zero_init_residual=False)
    net.init_weights()
    assert (net.layer1[0].bn2.weight == 1).all()


@pytest.mark.parametrize('as_list', [False, True])
def test_pretrained_norms_are_kept(tmp_path, as_list):
    source = ResNet(18, **TINY)
    for name, value in source.state_dict().items():
        if name.endswith('bn2.weight'):
            value.fill_(3)
    torch.save(source.state_dict(), tmp_path / 'net.pth')
    init_cfg = {'type': 'Pretrained', 'checkpoint': str(tmp_path / 'net.pth')}
    net = ResNet(18, **TINY, init_cfg=[init_cfg] if as_list else init_cfg)
    net.init_weights()
    assert (net.layer1[0].bn2.weight == 3).all()


def test_is_initialized_inside_a_model():
    class Model(BaseModule):
        def __init__(self):
            super().__init__()
            self.backbone = ResNet(18, **TINY)

    model = Model()
    model.init_weights()
    assert not model.backbone.layer1[0].bn2.weight.any()


@pytest.mark.parametrize('kind', [ResNet, PyConvResNet])
def test_defaults_are_of_as_many_stages_as_there_are(kind):
    net = kind(18, **TINY, num_stages=2, dcn={'type': 'DCNv2'})
    assert (net.strides, net.dilations, net.stage_with_dcn) == ((1, 2), (1, 1), (False, False))
    assert [out.shape[1] for out in net(torch.randn(1, 3, 32, 32))] == [8, 16]


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'depth': 20}, r'depth must be one of \[18, 34, 50, 101, 152\], got 20'),
        ({'plugins': PLUGINS[0]}, 'plugins must be a list of dicts, got {'),
        ({'num_stages': 5}, 'num_stages must be 1 to 4, got 5'),
        ({'in_channels': 0}, 'in_channels must be a positive integer, got 0'),
        ({'output_stride': 8, 'strides': (1, 2, 2, 1)}, r'leave out strides=\(1, 2, 2, 1\)$'),
        ({'strides': (1, 2, 2)}, r'strides must have 4 entries \(num_stages\), got \(1, 2, 2\)'),
        ({'out_indices': (0, 4)}, r'out_indices must be a list of stages, 0 to 3, got \(0, 4\)'),
        ({'frozen_stages': 5}, 'frozen_stages must be -1 to 4, got 5'),
        ({'style': 'torch'}, r"style must be one of \['pytorch', 'caffe'\], got 'torch'"),
        ({'groups': 4}, 'groups and base_width are for bottlenecks, which depth 18 does not have'),
        ({'multi_grid': (1, 2, 4)}, r'one entry for each of the 2 blocks of the last stage, got \(1, 2, 4\)'),
        ({'plugins': PLUGINS[:1]}, r"position .* one of \['after_conv1', 'after_conv2'\], got 'after_conv3'"),
        (
            {'plugins': [{**PLUGINS[1], 'cfg': {'type': 'NonLocal2d'}}] * 2, 'depth': 50},
            "two plugins 'nonlocal_block': give one of them another postfix",
        ),
    ],
)
def test_errors(settings, message):
    with pytest.raises(InputError, match=message):
        ResNet(**({'depth': 18} | settings))


NETWORKS = [
    lambda: ICResNet(18, 'geometric_d2', **TINY),
    lambda: PyConvResNet(18, base_channels=16),
    lambda: ResNet(18, **TINY),
]


@pytest.mark.parametrize('make', NETWORKS, ids=['IC', 'PyConv', 'plain'])
def test_features_by_torchvision(make, x):
    """And so whatever else is made of a graph of ``torch.fx``."""
    net = randomize_norms(make())
    extract = create_feature_extractor(net, {'layer2': 'second', 'layer4': 'last'})
    with torch.no_grad():
        features, (_, second, _, last) = extract.eval()(x), net.eval()(x)
    torch.testing.assert_close(features, {'second': second, 'last': last}, rtol=1e-4, atol=1e-4)
    traced = torch.fx.symbolic_trace(net.train())
    sum(level.square().mean() for level in traced(x)).backward()
    assert all(parameter.grad is not None for parameter in net.parameters())


class Scaled(BasicBlock):
    """A block with an argument of its own."""

    def __init__(self, *args, scale, **options):
        super().__init__(*args, **options)
        self.scale = scale


def test_blocks_take_options_of_their_own():
    class ScaledResNet(ResNet):
        arch_settings = {18: (Scaled, (2, 2, 2, 2))}

        def block_options(self, stage, number):
            return dict(scale=(stage, number))

    net = ScaledResNet(18, **TINY)
    scales = [block.scale for stage in (net.layer1, net.layer4) for block in stage]
    assert scales == [(0, 0), (0, 1), (3, 0), (3, 1)]


@pytest.mark.parametrize('kind', [ResNet, partial(ICResNet, pattern='geometric_d2'), PyConvResNet])
def test_hooks_freeze_and_unfreeze_by_the_names_of_the_libraries(kind):
    """As public hooks do: freeze, thaw after an epoch, and freeze fewer stages by the same method."""
    net = kind(18, base_channels=8, num_stages=3)
    net.frozen_stages = 2
    net._freeze_stages()
    assert not any(
        parameter.requires_grad
        for name in ('stem', 'layer1', 'layer2')
        for parameter in getattr(net, name).parameters()
    )
    assert all(parameter.requires_grad for parameter in net.layer3.parameters()) and not net.layer2.training
    for parameter in net.parameters():
        parameter.requires_grad = True
    net.frozen_stages = -1
    net.train()
    assert all(parameter.requires_grad for parameter in net.parameters()) and net.layer1.training


@pytest.mark.parametrize('deep_stem', [False, True])
def test_detectors_run_the_stages_by_the_names_of_the_libraries(deep_stem, x):
    image = x
    net = ICResNet(18, pattern='geometric_d2', base_channels=8, deep_stem=deep_stem).eval()
    assert net.res_layers == ['layer1', 'layer2', 'layer3', 'layer4'] and net.stage_blocks == (2, 2, 2, 2)
    assert net.block is type(net.layer1[0]) and net.feat_dim == 64
    x = net.maxpool(net.stem(image) if deep_stem else net.relu(net.norm1(net.conv1(image))))
    maps = []
    for name in net.res_layers:
        x = getattr(net, name)(x)
        maps.append(x)
    torch.testing.assert_close(tuple(maps), net(image))
    net.layer4 = nn.Identity()  # a detector that puts a stage of its own there
    assert torch.equal(net(image)[3], net(image)[2])


def test_a_subclass_that_overrides_what_is_never_called_is_refused():
    with pytest.raises(TypeError, match=r'Mine overrides make_res_layer, which no .* calls: override make_stage'):
        type('Mine', (ICResNet,), {'make_res_layer': None})


@pytest.mark.parametrize('channels', [1, 2, 4, 6])
@pytest.mark.parametrize('deep_stem', [False, True])
def test_a_stem_for_other_channels(channels, deep_stem, tmp_path):
    """The sum over a grey image's or a repeated image's channels is the file's; timm's own function says the same."""
    dense = ResNet(18, base_channels=8, deep_stem=deep_stem)
    torch.save(dense.state_dict(), tmp_path / 'rgb.pth')
    key = 'stem.0.weight' if deep_stem else 'conv1.weight'
    options = dict(base_channels=8, deep_stem=deep_stem, in_channels=channels, pattern='dense')
    cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'rgb.pth'))
    with pytest.raises(ArchitectureMismatchError, match='adapt_stem=True adapts it, init_cfg=None starts from random'):
        ICResNet(18, init_cfg=cfg, **options).init_weights()
    net = ICResNet(18, init_cfg=cfg, adapt_stem=True, **options)
    net.init_weights()
    weight = dense.state_dict()[key]
    expected = weight.sum(1, keepdim=True) if channels == 1 else weight[:, torch.arange(channels) % 3] * 3 / channels
    torch.testing.assert_close(net.state_dict().pop(key), expected)
    timm = pytest.importorskip('timm.models')
    torch.testing.assert_close(net.state_dict()[key], timm.adapt_input_conv(channels, weight))
    rest = {name: value for name, value in net.state_dict().items() if name != key}
    assert all(torch.equal(value, dense.state_dict()[name]) for name, value in rest.items())
    again = ICResNet(18, adapt_stem=True, **options)
    again.load_state_dict(net.state_dict())  # its own weights fit as they are
    assert torch.equal(again.state_dict()[key], net.state_dict()[key])
