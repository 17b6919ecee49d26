"""Networks by name, as in timm."""

import inspect
import sys

import pytest
import torch
from shipped_weights import CLASSES, fill
from torch import nn

import icconv_mm
from icconv_mm.errors import InputError, MissingLibraryError
from icconv_mm.layers import ICConv2d, PyConv2d
from icconv_mm.models import backbone_options

LAYERS = {
    'ic': ICConv2d,
    'small': ICConv2d,
    'pyconv': PyConv2d,
    'pyconvhg': PyConv2d,
}  # by the first word of a network's name
IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def test_names():
    every = icconv_mm.list_models()
    assert every == sorted(every) and len(every) == len(set(every)) > 25
    assert icconv_mm.list_models('ic_resnext*') == [
        'ic_resnext101_32x4d', 'ic_resnext101_32x8d', 'ic_resnext101_64x4d', 'ic_resnext50_32x4d',
    ]  # fmt: skip
    assert icconv_mm.list_models('vit*') == []
    assert icconv_mm.list_models(['*hgresnet50', 'ic_resnet18']) == ['ic_resnet18', 'pyconv_hgresnet50']
    with pytest.raises(InputError, match='named by a string, got 5'):
        icconv_mm.create_model(5)


@pytest.mark.parametrize('name', icconv_mm.list_models())
def test_every_name_builds_what_it_says(name):
    """Narrow; the depth is counted as usual, in convolutions of the main path and the classifier."""
    is_small = name.startswith('small')
    options = {'pattern': 'dense'} if name.startswith('ic_') else {}
    net = icconv_mm.create_model(name, **options, **{} if is_small else {'base_channels': 16})
    assert any(isinstance(module, LAYERS[name.split('_')[0]]) for module in net.modules())
    per_block = 2 if hasattr(net.backbone.layer1[0], 'conv2') and not hasattr(net.backbone.layer1[0], 'conv3') else 3
    blocks = sum(len(getattr(net.backbone, f'layer{stage}')) for stage in range(1, 5))
    assert f'{per_block * blocks + 2}' in ('18' if is_small else name)
    assert ('stem.0.weight' in net.backbone.state_dict()) == name.endswith(('c', '0d', '18d', '34d', '101d', '152d'))


@pytest.mark.parametrize(
    ('name', 'options', 'reductions'),
    [
        ('ic_resnet18', {'pattern': 'geometric_d4'}, [4, 8, 16, 32]),
        ('ic_resnet50', {'pattern': 'geometric_d4', 'out_indices': (1, 3), 'output_stride': 16}, [8, 16]),
        ('pyconv_resnet18', {'out_indices': (0, 2)}, [4, 16]),
        ('pyconv_resnet18', {'output_stride': 8}, [4, 8, 8, 8]),
        ('pyconv_resnet18', {'num_stages': 2}, [4, 8]),
        ('small', {}, [4, 8, 16, 32]),
        ('small_s8', {'pattern': 'dense'}, [8, 16, 32, 64]),
    ],
)
def test_features(name, options, reductions):
    net = icconv_mm.create_model(name, features_only=True, **options)
    info = net.feature_info
    assert info.reduction() == reductions
    maps = net(IMAGES)
    assert [list(level.shape) for level in maps] == [
        [2, channels, 64 // stride, 64 // stride] for channels, stride in zip(info.channels(), reductions)
    ]
    assert all(isinstance(net.get_submodule(module), nn.Sequential) for module in info.module_name())


def test_features_of_no_classes():
    """As those write it who are used to timm's classifiers."""
    net = icconv_mm.create_model('pyconv_resnet18', base_channels=16, features_only=True, num_classes=0)
    assert len(net(IMAGES)) == 4


def test_dropout_is_before_the_classifier():
    net = icconv_mm.create_model('ic_resnet18', pattern='dense', num_classes=3, drop_rate=0.5)
    assert net.drop_rate == 0.5
    net.drop_rate = 1.0
    torch.testing.assert_close(net(IMAGES), net.head.fc.bias.expand(2, 3))
    assert not torch.equal(net.eval()(IMAGES), net.head.fc.bias.expand(2, 3))


def test_weights_are_those_that_the_backbone_initializes():
    torch.manual_seed(3)
    net = icconv_mm.create_model('ic_resnet18', pattern='dense', features_only=True)
    assert net.is_init and not net.layer1[0].bn2.weight.any() and net.layer1[0].bn1.weight.all()
    torch.manual_seed(3)
    again = icconv_mm.create_model('ic_resnet18', pattern='dense')
    torch.testing.assert_close(again.backbone.state_dict(), net.state_dict(), rtol=0, atol=0)


def test_checkpoints_of_torchvision_and_of_mmpretrain(tmp_path):
    models = pytest.importorskip('torchvision.models')
    theirs = models.resnet18(num_classes=5).eval()
    torch.save(theirs.state_dict(), tmp_path / 'flat.pth')
    net = icconv_mm.create_model(
        'ic_resnet18', pattern='dense', num_classes=5, checkpoint_path=tmp_path / 'flat.pth'
    ).eval()
    torch.testing.assert_close(net(IMAGES), theirs(IMAGES))
    other = {key: torch.zeros_like(value) for key, value in net.state_dict().items()}
    torch.save({'state_dict': other, 'state_dict_ema': net.state_dict()}, tmp_path / 'averaged.pth')
    averaged = icconv_mm.create_model(
        'ic_resnet18', pattern='dense', num_classes=5, checkpoint_path=tmp_path / 'averaged.pth'
    )
    torch.testing.assert_close(averaged.eval()(IMAGES), theirs(IMAGES))  # as timm takes it
    torch.save({'state_dict': net.state_dict(), 'meta': {}}, tmp_path / 'ours.pth')
    assert {key.split('.')[0] for key in net.state_dict()} == {'backbone', 'head'}
    options = dict(num_classes=5, checkpoint_path=tmp_path / 'ours.pth')
    torch.testing.assert_close(
        icconv_mm.create_model('ic_resnet18', pattern='dense', **options).eval()(IMAGES), theirs(IMAGES)
    )
    options = dict(features_only=True, checkpoint_path=tmp_path / 'flat.pth')
    maps = icconv_mm.create_model('ic_resnet18', pattern='dense', **options).eval()(IMAGES)
    torch.testing.assert_close(theirs.fc(maps[-1].mean((2, 3))), theirs(IMAGES))
    with pytest.raises(
        InputError, match=r'(?s)flat\.pth does not fit ImageClassifier.*shape \(2\): head\.fc\.weight \[9, 512\]'
    ):
        icconv_mm.create_model('ic_resnet18', pattern='dense', num_classes=9, checkpoint_path=tmp_path / 'flat.pth')


@pytest.mark.parametrize(
    ('name', 'options', 'words'),
    [
        ('ic_resnet51', {}, r"no network 'ic_resnet51'; near it: .*ic_resnet5"),
        ('vit', {}, r"no network 'vit'"),
        (
            'ic_resnet50',
            {},
            "create_model: ic_resnet50 needs either .*, got neither: give for example pattern='geometric_d4', or",
        ),
        ('ic_resnet50', {'pattern': 'dense', 'supernet_d_max': 2}, 'or supernet_d_max, got both'),
        ('ic_resnet50', {'supernet_d_max': 0}, '^supernet_d_max must be a positive integer, got 0'),
        ('ic_resnet50', {'pattern': 'dense', 'pretrained': True}, 'no weights of ic_resnet50 come with icconv_mm'),
        ('small', {'supernet_d_max': 2, 'pattern': 'dense'}, 'or supernet_d_max, got both'),
        ('ic_resnet50', {'pattern': 'dense', 'out_indices': (1,)}, 'out_indices go with features_only=True'),
        (
            'ic_resnet18',
            {'pattern': 'dense', 'features_only': True, 'num_classes': 3, 'drop_rate': 0.3},
            'features_only=True gives no classifier: leave out num_classes=3 and drop_rate=0.3',
        ),
        ('ic_resnet18', {'pattern': 'dense', 'drop_rate': 1.0}, 'drop_rate must be at least 0 and below 1, got 1.0'),
        ('ic_resnet18', {'pattern': 'dense', 'drop_rate': -0.1}, 'drop_rate must be at least 0 and below 1, got -0.1'),
        ('pyconv_resnet18', {'num_classes': -1}, 'num_classes must be an integer of at least 0, got -1'),
        ('pyconv_resnet18', {'in_chans': 0}, 'in_chans must be a positive integer, got 0'),
        ('pyconv_resnet18', {'features_only': True, 'out_indices': 5}, 'out_indices must be stages, 0 to 3, .* got 5$'),
        ('pyconv_resnet50', {'pattern': 'dense'}, 'pyconv_resnet50 takes no pattern'),
        ('ic_resnet50', {'pattern': True}, 'True is no pattern; what follows the name has a name: pretrained=True'),
    ],
)
def test_refusals(name, options, words):
    with pytest.raises(ValueError, match=words):
        icconv_mm.create_model(name, **options)


@pytest.mark.parametrize(
    ('name', 'options', 'words'),
    [
        ('ic_resnet18', {'in_channels': 1}, "multiple values for keyword argument 'in_channels'"),
        ('ic_resnet18', {'depth': 34}, "multiple values for keyword argument 'depth'"),
        ('small', {'stem_channels': 16}, "multiple values for keyword argument 'stem_channels'"),
        ('ic_resnext50_32x4d', {'width_per_group': 8}, 'got width_per_group=8 and base_width=4: give one'),
        ('ic_resnet18', {'num_class': 3}, "ICResNet got an unexpected keyword argument 'num_class'"),
        ('pyconv_resnet18', {'stage_kernel': ()}, "PyConvResNet got an unexpected keyword argument 'stage_kernel'"),
        ('ic_resnet18d', {'avg_down': False}, 'avg_down of ICResNetV1d is always True, got False'),
    ],
)
def test_options_that_it_does_not_take(name, options, words):
    pattern = {'pattern': 'dense'} if name.startswith('ic_') else {}
    with pytest.raises((TypeError, InputError), match=words):
        icconv_mm.create_model(name, **pattern | options)


def test_options_of_the_classes_are_taken():
    options = dict(groups=32, base_width=4, deep_stem=True)
    net = icconv_mm.create_model('ic_resnet50', supernet_d_max=2, base_channels=16, **options)
    assert net.backbone.deep_stem and net.backbone.layer1[0].conv2.groups == 32


@pytest.mark.parametrize('build', [icconv_mm.create_model, icconv_mm.from_timm])
def test_all_but_the_name_has_a_name(build):
    kinds = {parameter.name: parameter.kind for parameter in inspect.signature(build).parameters.values()}
    assert kinds.pop('name') == inspect.Parameter.POSITIONAL_OR_KEYWORD
    assert set(kinds.values()) == {inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD}
    with pytest.raises(InputError, match=rf'{build.__name__}: True is no pattern'):
        build('ic_resnet18', pattern=True)
    with pytest.raises(TypeError, match='positional'):
        build('ic_resnet18', 'dense')


@pytest.mark.parametrize('name', ['small', 'small_s8'])
def test_names_and_configs_mean_the_same_network(name, repo):
    config = pytest.importorskip('mmengine.config').Config
    backbone = config.fromfile(repo / f'configs/_base_/backbones/{name}.py').backbone.to_dict()
    kind, options = backbone_options(name)
    assert backbone == dict(type=f'icconv_mm.{kind}', **options, norm_eval=False)
    with torch.device('meta'):
        supernet = icconv_mm.create_model(name, supernet_d_max=3, features_only=True)
    assert supernet.layer1[0].conv1.kernel_size == (7, 7)


def test_weights_of_the_package(weights_folder):
    assert icconv_mm.list_models(pretrained=True) == []
    with pytest.raises(InputError, match='no weights of small come with icconv_mm'):
        icconv_mm.create_model('small', pretrained=True)
    weights = fill(weights_folder, 'small', 'classification')['icconv_mm://small']
    assert icconv_mm.list_models(pretrained=True) == ['small']
    assert icconv_mm.list_models('ic_*', pretrained=True) == []
    net = icconv_mm.create_model('small', pretrained=True)
    assert all(torch.equal(net.state_dict()[key], value) for key, value in weights.items())
    assert net.num_classes == net.default_cfg['num_classes'] == CLASSES
    assert net.default_cfg['input_size'] == (3, 64, 64) and net.default_cfg['pool_size'] == (2, 2)
    torch.manual_seed(0)
    other = icconv_mm.create_model('small', pretrained=True, num_classes=3)
    assert other(IMAGES).shape == (2, 3) and torch.equal(other.backbone.conv1.weight, net.backbone.conv1.weight)
    assert icconv_mm.create_model('small', pretrained=True, num_classes=0)(IMAGES).shape == (2, 192)
    maps = icconv_mm.create_model('small', pretrained=True, features_only=True).eval()(IMAGES)
    assert torch.equal(maps[-1], net.eval().forward_features(IMAGES))
    assert icconv_mm.create_model('small').num_classes == 1000
    for options, words in (({'checkpoint_path': 'a.pth'}, 'give one'), ({'in_chans': 1}, 'does not fit')):
        with pytest.raises(InputError, match=words):
            icconv_mm.create_model('small', pretrained=True, **options)


def test_a_backbone_alone_has_weights(weights_folder):
    """Those of a detector, where the package has no classifier."""
    weights = fill(weights_folder, 'small_s8', 'detection')['icconv_mm://small_s8_detection']
    with pytest.raises(InputError, match='weights of small_s8 that come with icconv_mm have no classifier: give num_c'):
        icconv_mm.create_model('small_s8', pretrained=True)
    net = icconv_mm.create_model('small_s8', pretrained=True, num_classes=1000)
    assert net.num_classes == 1000 and torch.equal(net.backbone.conv1.weight, weights['backbone.conv1.weight'])


def test_a_supernet_starts_from_weights(weights_folder):
    """Of a backbone of 3x3 kernels, whose taps lie around the centre; a whole network of them is none to search."""
    weights = fill(weights_folder, 'small', 'classification')['icconv_mm://small']
    net = icconv_mm.create_model('small', supernet_d_max=2, features_only=True, pretrained=True)
    kernel, taps = net.layer2[0].conv1.weight, weights['backbone.layer2.0.conv1.weight']
    assert torch.equal(kernel[..., 1:4, 1:4], taps) and kernel.abs().sum() == taps.abs().sum()
    with pytest.raises(InputError, match='does not fit ImageClassifier'):
        icconv_mm.create_model('small', supernet_d_max=2, pretrained=True)


def test_from_timm():
    timm = pytest.importorskip('timm')
    torch.manual_seed(0)
    dense = timm.create_model('resnet26d', num_classes=4).eval()
    torch.manual_seed(0)
    net = icconv_mm.from_timm('resnet26d', pattern='dense', num_classes=4).eval()
    assert type(net) is type(dense) and list(net.state_dict()) == list(dense.state_dict())
    torch.testing.assert_close(net(IMAGES), dense(IMAGES), rtol=1e-4, atol=1e-4)
    assert {name for name, layer in net.named_modules() if isinstance(layer, ICConv2d)} == {
        f'layer{stage}.{block}.conv2' for stage in range(1, 5) for block in range(2)
    }
    features = icconv_mm.from_timm('resnet18', pattern='geometric_d4', features_only=True, out_indices=(2, 4)).eval()
    maps = features(IMAGES)
    assert [level.shape[1] for level in maps] == features.feature_info.channels() == [128, 512]
    assert sum(isinstance(layer, ICConv2d) for layer in features.modules()) == 16
    deployed = icconv_mm.deploy(net)
    torch.testing.assert_close(deployed(IMAGES), net(IMAGES), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        ({}, "^from_timm: resnet18 needs either a pattern or .*, got neither: give for example pattern='geometric_d4'"),
        ({'supernet_d_max': 0}, '^supernet_d_max must be a positive integer, got 0'),
    ],
)
def test_refusals_of_from_timm(options, words):
    with pytest.raises(ValueError, match=words):
        icconv_mm.from_timm('resnet18', **options)


def test_from_timm_without_timm(monkeypatch):
    monkeypatch.setitem(sys.modules, 'timm', None)
    with pytest.raises(MissingLibraryError, match=r'from_timm needs timm .*: pip install timm'):
        icconv_mm.from_timm('resnet50', pattern='dense')


@pytest.mark.parametrize('name', ['ic_resnet18', 'pyconv_resnet18'])
def test_networks_without_data(name):
    """On the device 'meta' and in a ``FakeTensorMode``, as tools build what they load or partition later."""
    pattern = {'pattern': 'geometric_d4'} if name.startswith('ic_') else {}
    whole = icconv_mm.create_model(name, **pattern).eval()
    with torch.device('meta'):
        empty = icconv_mm.create_model(name, **pattern).eval()
    assert empty(torch.zeros(1, 3, 64, 64, device='meta')).shape == (1, 1000)
    empty.load_state_dict(whole.state_dict(), assign=True)
    x = torch.randn(1, 3, 64, 64)
    assert torch.equal(empty(x), whole(x))
    with torch._subclasses.FakeTensorMode():
        assert icconv_mm.create_model(name, **pattern)(torch.zeros(1, 3, 64, 64)).shape == (1, 1000)
