"""Weights of other libraries: they arrive, all of them, and the numbers are those of the library's network."""

import copy

import pytest
import torch
import torchvision
from mmengine.registry import MODELS
from mmengine.runner import load_checkpoint
from torch import nn

from icconv_mm.backbones import ICResNet, ICResNetV1c, ICResNeXt, PyConvResNet, ResNet
from icconv_mm.checkpoints.matching import ArchitectureMismatchError
from icconv_mm.errors import InputError

SMALL = {'base_channels': 16, 'stem_channels': 16}
DEEP, POOLED = {'deep_stem': True}, {'deep_stem': True, 'avg_down': True}
D8, CONTRACTED = {'strides': (1, 2, 1, 1), 'dilations': (1, 1, 2, 4)}, {'contract_dilation': True}
# library's network, its arguments, our class, arguments beside depth
OF_OPENMMLAB = [
    ('mmdet.ResNet', {'depth': 50, 'style': 'caffe', **SMALL}, ICResNet, {'style': 'caffe', **SMALL}),
    ('mmdet.ResNetV1d', {'depth': 50, **SMALL}, ICResNet, {**POOLED, **SMALL}),
    ('mmdet.ResNeXt', {'depth': 50, 'groups': 4, 'base_width': 4, **SMALL}, ICResNeXt, {'groups': 4, **SMALL}),
    ('mmseg.ResNetV1c', {'depth': 18, **D8, **CONTRACTED, **SMALL}, ICResNetV1c, {**D8, **CONTRACTED, **SMALL}),
    ('mmpose.ResNet', {'depth': 18, **D8, **SMALL}, ICResNet, {**D8, **SMALL}),
    ('mmpretrain.ResNetV1d', {'depth': 50, **SMALL}, ICResNet, {**POOLED, **SMALL}),
    ('mmpretrain.ResNeXt', {'depth': 50, 'groups': 8, 'width_per_group': 4}, ICResNeXt, {'groups': 8}),
]
LAYOUTS = {
    'bare': lambda state: state,
    'mmengine': lambda state: {'meta': {'epoch': 1}, 'state_dict': in_a_model(state)},
    'distributed': lambda state: {'state_dict': {f'module.{key}': value for key, value in state.items()}},
    'trainer': lambda state: {'model': {f'module.{key}': value for key, value in state.items()}, 'epoch': 3},
}


def in_a_model(state):
    others = ('neck.lateral_convs.0.conv.weight', 'rpn_head.rpn_conv.weight', 'head.fc.weight', 'decode_head.bias')
    return {f'backbone.{key}': value for key, value in state.items()} | {key: torch.ones(1) for key in others}


def randomized(net: nn.Module) -> nn.Module:
    """Weights and statistics as of no other network, and outputs of moderate size."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1)
            nn.init.normal_(module.bias, std=0.1)
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 2)
    net.eval()  # which gives nothing back in some libraries
    return net


def from_file(backbone, state, tmp_path, layout='mmengine', pattern='dense', **options):
    path = tmp_path / 'weights.pth'
    torch.save(LAYOUTS[layout](state), path)
    init_cfg = {'type': 'Pretrained', 'checkpoint': str(path)}
    net = backbone(pattern=pattern, init_cfg=init_cfg, **options)
    net.init_weights()
    return net.eval()


@pytest.mark.parametrize(('kind', 'arguments', 'backbone', 'options'), OF_OPENMMLAB)
def test_openmmlab(kind, arguments, backbone, options, tmp_path):
    pytest.importorskip(f'{kind.split(".")[0]}.models')
    theirs = randomized(MODELS.build({'type': kind, 'out_indices': (0, 1, 2, 3), **arguments}))
    ours = from_file(backbone, theirs.state_dict(), tmp_path, depth=arguments['depth'], **options)
    x = torch.randn(2, 3, 75, 61)
    torch.testing.assert_close(ours(x), tuple(theirs(x)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('layout', LAYOUTS)
def test_layouts_of_files(layout, tmp_path):
    state = randomized(ICResNet(18, 'dense', **SMALL)).state_dict()
    ours = from_file(ICResNet, state, tmp_path, layout, 'geometric_d4', depth=18, **SMALL).state_dict()
    assert all(torch.equal(value, state[key]) for key, value in ours.items())


@pytest.mark.parametrize(
    ('name', 'backbone', 'options'),
    [
        ('resnet18', ICResNet, {'depth': 18}),
        pytest.param('resnet50', ICResNet, {'depth': 50}, marks=pytest.mark.slow),
        pytest.param('resnext50_32x4d', ICResNeXt, {'depth': 50}, marks=pytest.mark.slow),
        pytest.param('wide_resnet50_2', ICResNet, {'depth': 50, 'base_width': 128}, marks=pytest.mark.slow),
    ],
)
def test_torchvision(name, backbone, options, tmp_path):
    theirs = randomized(getattr(torchvision.models, name)())
    ours = from_file(backbone, theirs.state_dict(), tmp_path, 'bare', **options)
    assert_same_logits(theirs, ours, torch.flatten)


@pytest.mark.parametrize(
    ('name', 'backbone', 'options'),
    [
        ('resnet18', ICResNet, {'depth': 18}),
        ('resnet18d', ICResNet, {'depth': 18, **POOLED}),
        pytest.param('resnet50c', ICResNet, {'depth': 50, **DEEP}, marks=pytest.mark.slow),
        pytest.param('resnet50d', ICResNet, {'depth': 50, **POOLED}, marks=pytest.mark.slow),
        pytest.param('resnext50_32x4d', ICResNeXt, {'depth': 50}, marks=pytest.mark.slow),
    ],
)
def test_timm(name, backbone, options, tmp_path):
    timm = pytest.importorskip('timm')
    theirs = randomized(timm.create_model(name, pretrained=False))
    ours = from_file(backbone, theirs.state_dict(), tmp_path, 'bare', **options)
    assert_same_logits(theirs, ours, lambda x, _: x)


def assert_same_logits(theirs, ours, flatten):
    pool = theirs.avgpool if hasattr(theirs, 'avgpool') else theirs.global_pool
    x = torch.randn(2, 3, 75, 61)
    torch.testing.assert_close(theirs.fc(flatten(pool(ours(x)[-1]), 1)), theirs(x), rtol=1e-5, atol=1e-5)


def test_inside_a_model(tmp_path):
    """A whole classifier of mmpretrain fits one whose backbone is ours, strictly."""
    pytest.importorskip('mmpretrain.models')
    theirs = MODELS.build({'type': 'mmpretrain.ResNetV1d', 'depth': 18, **SMALL})
    model = nn.ModuleDict({'backbone': ICResNet(18, 'dense', **POOLED, **SMALL), 'head': nn.Linear(2, 2)})
    state = {f'backbone.{key}': value for key, value in theirs.state_dict().items()}
    model.load_state_dict(state | {f'head.{key}': value for key, value in model['head'].state_dict().items()})
    for ours, their in zip(model['backbone'].state_dict().values(), theirs.state_dict().values(), strict=True):
        assert torch.equal(ours, their)


@pytest.mark.parametrize('kind', ['mmpretrain.SEResNet', 'mmpretrain.SEResNeXt'])
def test_squeeze_and_excitation_is_refused_by_name(kind, tmp_path):
    pytest.importorskip('mmpretrain.models')
    state = MODELS.build({'type': kind, 'depth': 50}).state_dict()
    with pytest.raises(ValueError, match=r"'backbone\.layer1\.0\.se_layer\.\S+' belongs to an SE-ResNet .*ICResNet"):
        from_file(ICResNet, state, tmp_path, depth=50)


def without(state, key):
    return {name: value for name, value in state.items() if name != key}


@pytest.mark.parametrize('layout', ['bare', 'mmengine'])
@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda s: without(s, 'layer3.1.conv2.weight'), r'missing in the checkpoint \(1\): layer3.1 \(1: conv2.weight'),
        (lambda s: without(s, 'bn1.running_mean'), r'missing in the checkpoint \(1\): bn1 \(1: running_mean'),
        (lambda s: s | {'layer4.0.conv2.conv_offset.weight': torch.ones(1)}, r'not in the model \(1\): layer4.0 '),
        (lambda s: s | {'layer4.2.conv1.weight': torch.ones(1)}, r'not in the model \(1\): layer4.2 \(1: conv1.weight'),
        (lambda s: s | {'conv1.weight': torch.ones(16, 1, 7, 7)}, r'\[16, 3, 7, 7\] in the model, \[16, 1, 7, 7\] in'),
        (lambda s: {'patch_embed.weight': torch.ones(1)}, r'missing in the checkpoint \(100\)'),
    ],
    ids=['missing', 'statistics', 'deformable', 'deeper', 'shape', 'another'],
)
def test_less_than_all_is_an_error_with_the_keys(change, message, layout, tmp_path):
    state = change(ICResNet(18, 'dense', **SMALL).state_dict())
    with pytest.raises(ArchitectureMismatchError, match=rf'(?s)^{tmp_path}/weights\.pth: .*{message}'):
        from_file(ICResNet, state, tmp_path, layout, depth=18, **SMALL)
    with pytest.raises(ArchitectureMismatchError, match=message):  # mmengine would report it, and go on
        load_checkpoint(ICResNet(18, 'dense', **SMALL), str(tmp_path / 'weights.pth'))


def test_weights_of_a_dense_network_are_none_of_pyramids():
    with pytest.raises(ArchitectureMismatchError, match=r'pyconv_levels.*(?s:.*) no pyramidal kernels.*init_cfg=None'):
        PyConvResNet(18).load_state_dict(torchvision.models.resnet18().state_dict())


@pytest.mark.parametrize('prefix', ['', 'backbone.'])
def test_official_checkpoints_name_the_converter(prefix):
    state = {f'{prefix}{key}': value for key, value in ResNet(18).state_dict().items()}
    weight = state.pop(f'{prefix}layer1.0.conv1.weight')
    state[f'{prefix}layer1.0.conv1.conv_list.0.weight'] = weight
    with pytest.raises(ValueError, match=r'conv_list.*tools/convert_checkpoint\.py'):
        ICResNet(18, 'dense').load_state_dict(state)


def test_options_that_the_file_wants_are_named(tmp_path):
    state = ICResNet(18, 'dense', **POOLED, **SMALL).state_dict()
    with pytest.raises(ArchitectureMismatchError, match='of a network with deep_stem=True and avg_down=True'):
        from_file(ICResNet, state, tmp_path, depth=18, **SMALL)


def test_counters_and_stages_that_are_not_used_may_be_absent_or_left(tmp_path):
    whole = ICResNet(18, 'dense', **SMALL).state_dict()
    state = {key: value for key, value in whole.items() if not key.endswith('num_batches_tracked')}
    stages = {'num_stages': 3, 'strides': (1, 2, 2), 'dilations': (1, 1, 1), 'out_indices': (2,)}
    ours = from_file(ICResNet, state, tmp_path, depth=18, **stages, **SMALL)
    assert all(torch.equal(value, whole[key]) for key, value in ours.state_dict().items())


def test_a_part_on_purpose():
    net, part = ICResNet(18, 'dense'), {'conv1.weight': torch.ones(64, 3, 7, 7)}
    before = {key: value.clone() for key, value in net.state_dict().items()}
    result = net.load_state_dict(part | {'layer5.0.conv1.weight': torch.ones(1)}, strict=False)
    missing = [key for key in before if key != 'conv1.weight' and not key.endswith('num_batches_tracked')]
    assert result.missing_keys == missing
    assert result.unexpected_keys == ['layer5.0.conv1.weight']
    torch.testing.assert_close(dict(net.state_dict()), before | part, rtol=0, atol=0)
    with pytest.raises(ArchitectureMismatchError):  # the next call is strict again
        net.load_state_dict(part)


@pytest.mark.parametrize('prefix', ['', 'backbone.'])
def test_a_part_in_another_layout(prefix):
    """The weights of one stage, of a file that has a classifier."""
    whole = ResNet(18).state_dict()
    part = {f'{prefix}{key}': value for key, value in whole.items() if key.startswith('layer2.')}
    net = ICResNet(18, 'dense')
    missing, unexpected = net.load_state_dict(part | {'fc.weight': torch.ones(10, 512)}, strict=False)
    assert unexpected == [] and not [key for key in missing if key.startswith('layer2.')]
    assert torch.equal(net.layer2[0].conv1.weight, whole['layer2.0.conv1.weight'])


def test_a_part_must_fit_and_be_of_a_dense_network():
    net, weight = ICResNet(18, 'dense'), torch.ones(32, 3, 7, 7)
    with pytest.raises(ArchitectureMismatchError, match=r'of another shape \(1\): conv1\.weight \[64, 3, 7, 7\]'):
        net.load_state_dict({'conv1.weight': weight, 'bn1.weight': torch.zeros(64)}, strict=False)
    assert net.bn1.weight.min() == 1  # nothing was loaded
    with pytest.raises(InputError, match='official IC-Conv checkpoint'):
        net.load_state_dict({'layer1.0.conv1.conv_list.0.weight': weight}, strict=False)
    with pytest.raises(TypeError, match='dict-like'):
        net.load_state_dict([1], strict=False)


def test_a_part_that_becomes_the_network_s_own_tensors():
    net, part = ICResNet(18, 'dense'), {'bn1.weight': torch.full((64,), 2.0)}
    weight = net.conv1.weight
    net.load_state_dict(part, strict=False, assign=True)
    assert net.bn1.weight.data_ptr() == part['bn1.weight'].data_ptr() and net.conv1.weight is weight


def test_the_state_dict_of_a_part_stays_as_it_is():
    """Also its metadata, by which torch knows the version of each layer."""
    net = ICResNet(18, 'dense')
    state = net.state_dict()
    metadata, keys = copy.deepcopy(state._metadata), list(state)
    assert net.load_state_dict(state, strict=False) == ([], [])
    assert state._metadata == metadata and list(state) == keys
