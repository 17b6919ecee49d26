"""The networks under timm's names, as timm's tools build, cut and train them."""

import subprocess
import sys

import pytest
import torch

pytest.importorskip('timm')

import timm
from shipped_weights import CLASSES, fill
from timm.data import IMAGENET_DEFAULT_MEAN, resolve_data_config
from timm.models import group_parameters
from timm.optim import create_optimizer_v2

import icconv_mm
import icconv_mm.timm_models  # noqa: F401 -- registers
from icconv_mm.backbones.blocks import Block
from icconv_mm.errors import InputError
from icconv_mm.models import default_cfg

NAMES = ['ic_resnet18.geometric_d4', 'ic_resnext50_32x4d.dense', 'pyconv_hgresnet50']
IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


def network(name, **options):
    torch.manual_seed(0)
    return timm.create_model(name, **{'base_channels': 16} | options)


IN_TIMM = {name: f'icconv_{name}' if name.startswith('small') else name for name in icconv_mm.list_models()}


def test_timm_lists_all_of_them():
    assert set(IN_TIMM.values()) == set(timm.list_models(module='timm_models'))
    assert not timm.list_models('ic_*', pretrained=True)
    program = 'import icconv_mm.models, sys; assert "timm" not in sys.modules'
    subprocess.run([sys.executable, '-c', program], check=True)


def test_forward_and_backward(name):
    net = network(name, num_classes=42, in_chans=4)
    logits = net(torch.randn(2, 4, 64, 64))
    assert logits.shape == (2, 42) and logits.isfinite().all() and net.in_chans == 4
    logits.mean().backward()
    assert all(parameter.grad is not None for parameter in net.parameters())


@pytest.mark.parametrize('every', icconv_mm.list_models())
def test_what_a_cfg_says(every):
    with torch.device('meta'):
        net = icconv_mm.create_model(every, **{'pattern': 'dense'} if every.startswith('ic_') else {})
    cfg, layers = timm.get_pretrained_cfg(IN_TIMM[every]), dict(net.named_modules())
    assert net.default_cfg == net.pretrained_cfg
    assert cfg.first_conv == next(name for name, layer in layers.items() if isinstance(layer, torch.nn.Conv2d))
    assert layers[cfg.first_conv].in_channels == cfg.input_size[0] and layers[cfg.classifier] is net.get_classifier()
    assert cfg.pool_size[0] == cfg.input_size[1] // net.feature_info[-1]['reduction']
    config = resolve_data_config({}, model=net)
    assert config['input_size'] == (3, 224, 224) and config['mean'] == IMAGENET_DEFAULT_MEAN


def test_heads(name):
    net = network(name).double().eval()
    images = IMAGES.double()
    features = net.forward_features(images)
    assert features.shape == (2, net.num_features, 2, 2) and net.head_hidden_size == net.num_features
    net.reset_classifier(0, 'max')
    torch.testing.assert_close(net(images), features.amax((2, 3)))
    net.reset_classifier(0, '')
    torch.testing.assert_close(net(images), features)
    net.reset_classifier(5, 'avg')
    torch.testing.assert_close(net(images), net.get_classifier()(features.mean((2, 3))))
    net.reset_classifier(7)
    assert net.global_pool == 'avg' and net(images).shape == (2, 7) and not net.get_classifier().training
    for arguments, words in (
        ((3, ''), "global_pool='' goes with num_classes=0"),
        ((0, 'mean'), "one of .*'max'.*mean"),
    ):
        with pytest.raises(InputError, match=words):
            net.reset_classifier(*arguments)


def test_features(name):
    net = network(name, features_only=True, out_indices=(0, 2), in_chans=1).eval()
    info = net.feature_info
    maps = net(IMAGES[:, :1])
    assert info.out_indices == (0, 2) and len(info) == len(info.info) == 4
    assert [feature.shape[1] for feature in maps] == info.channels() == [info.channels(0), info[2]['num_chs']]
    assert [64 // feature.shape[2] for feature in maps] == info.reduction() == info.get('reduction', [0, 2])
    assert [entry['module'] for entry in info.get_dicts()] == info.module_name() == ['layer1', 'layer3']
    assert info.get_dicts(['num_chs'], 3) == {'num_chs': info.channels([3])[0]}
    assert net.default_cfg['input_size']


@pytest.mark.parametrize('every', icconv_mm.list_models())
def test_timm_contract_of_features(every):
    """What timm's tests ask of a network's features, and what encoders built on timm read."""
    options = {'pattern': 'dense'} if every.startswith('ic_') else {}
    with torch.device('meta'):
        net = timm.create_model(IN_TIMM[every], features_only=True, out_indices=(-1, -3), **options).eval()
        maps = net(torch.empty(1, 3, 64, 64))
        last = timm.create_model(IN_TIMM[every], features_only=True, out_indices=1, **options)
    info = net.feature_info
    assert isinstance(maps, list) and [feature.shape[1] for feature in maps] == info.channels()
    assert [64 // feature.shape[2] for feature in maps] == info.reduction() and info.out_indices == (1, 3)
    assert [entry['index'] for entry in info.get_dicts()] == [1, 3] and info.from_other(2).out_indices == (2, 3)
    assert last.feature_info.out_indices == (3,) and last.feature_info.channels() == info.channels()[1:]


def test_a_cfg_of_a_name_with_a_pattern():
    assert timm.get_pretrained_cfg('ic_resnet18.even_d12').tag == 'even_d12'
    assert timm.get_pretrained_cfg('ic_resnet18').tag is None
    with pytest.raises(RuntimeError, match='Invalid pretrained tag'):
        timm.get_pretrained_cfg('pyconv_resnet18.dense')


def test_intermediates(name):
    net = network(name).eval()
    whole = network(name, features_only=True).eval()(IMAGES)
    last, maps = net.forward_intermediates(IMAGES)
    assert all(map(torch.equal, maps, whole)) and last is maps[-1]
    assert torch.equal(net.forward_head(last), net(IMAGES))
    assert torch.equal(net.forward_head(last, pre_logits=True), last.mean((2, 3)))
    last, maps = net.forward_intermediates(IMAGES, indices=[-4, 1])
    assert len(maps) == 2 and torch.equal(last, whole[-1]) and torch.equal(maps[1], whole[1])
    ran = []
    net.backbone.layer3.register_forward_hook(lambda *_: ran.append(3))
    last, maps = net.forward_intermediates(IMAGES, indices=[1], stop_early=True)
    assert torch.equal(last, whole[1]) and last is maps[0] and not ran
    maps = net.forward_intermediates(IMAGES, indices=2, intermediates_only=True)
    assert all(map(torch.equal, maps, whole[2:])) and ran
    for options, words in (
        (dict(indices=[4]), 'stages, 0 to 3, .* got .4.'),
        (dict(output_fmt='NLC'), "'NCHW', got 'NLC'"),
    ):
        with pytest.raises(InputError, match=words):
            net.forward_intermediates(IMAGES, **options)


def test_gradient_checkpointing(name):
    net = network(name, num_classes=3)
    before = [block.with_cp for block in net.modules() if isinstance(block, Block)]
    gradients = []
    for enable in (False, True):
        net.set_grad_checkpointing(enable)
        net.zero_grad()
        net(IMAGES).square().sum().backward()
        gradients.append([parameter.grad.clone() for parameter in net.parameters()])
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-4)
    assert all(block.with_cp is True for block in net.modules() if isinstance(block, Block))
    net.set_grad_checkpointing(False)
    assert [block.with_cp for block in net.modules() if isinstance(block, Block)] == before


def test_rates_that_decay_by_layer(name):
    net = network(name)
    groups = create_optimizer_v2(net, opt='adamw', layer_decay=0.5).param_groups
    rate = {id(parameter): group['lr_scale'] for group in groups for parameter in group['params']}
    assert len(rate) == len(list(net.parameters()))
    named = {name: rate[id(parameter)] for name, parameter in net.named_parameters()}
    assert named[net.default_cfg['first_conv'] + '.weight'] == min(rate.values()) < 0.01
    assert named['head.fc.weight'] == 1 and len({*rate.values()}) == 2 + sum(
        isinstance(block, Block) for block in net.modules()
    )
    assert len(group_parameters(net, net.group_matcher(coarse=True))) == 6  # stem, four stages, head


def test_weights_of_a_file(tmp_path):
    net = network('pyconv_resnet18', num_classes=3).eval()
    torch.save(net.state_dict(), tmp_path / 'own.pth')
    options = dict(num_classes=3, base_channels=16)
    overlay = dict(pretrained_cfg_overlay=dict(file=str(tmp_path / 'own.pth'), mean=(0, 0, 0)))
    other = timm.create_model('pyconv_resnet18', pretrained=True, **overlay, **options).eval()
    assert torch.equal(net(IMAGES), other(IMAGES)) and other.pretrained_cfg['mean'] == (0, 0, 0)
    other = timm.create_model('pyconv_resnet18', checkpoint_path=str(tmp_path / 'own.pth'), **options).eval()
    assert torch.equal(net(IMAGES), other(IMAGES))
    with pytest.raises(InputError, match='no weights of pyconv_resnet18 come with icconv_mm'):
        timm.create_model('pyconv_resnet18', pretrained=True)


def test_weights_of_the_package(weights_folder):
    fill(weights_folder, 'small', 'classification')
    ours = icconv_mm.create_model('small', pretrained=True).eval()
    net = timm.create_model('icconv_small', pretrained=True).eval()
    assert torch.equal(net(IMAGES), ours(IMAGES)) and net.pretrained_cfg['num_classes'] == net.num_classes == CLASSES
    assert timm.create_model('icconv_small', pretrained=True, num_classes=2)(IMAGES).shape == (2, 2)
    assert default_cfg('small')['file'] == str(weights_folder / 'small.safetensors')
    assert 'file' not in default_cfg('small_s8')


def test_patterns():
    one, other = network('ic_resnet18.geometric_d4'), network('ic_resnet18', pattern='geometric_d4')
    assert str(one) == str(other) != str(network('ic_resnet18.dense'))
    with pytest.raises(InputError, match="features_only=True gives no classifier: leave out global_pool='max'"):
        timm.create_model('ic_resnet18.dense', features_only=True, global_pool='max')
