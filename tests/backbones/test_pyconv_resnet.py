import copy
import re

import pytest
import torch
from mmengine.config import Config
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from icconv_mm.backbones import ICResNet, PyConvHGResNet, PyConvResNet
from icconv_mm.backbones.pyconv_stages import STAGE_GROUPS
from icconv_mm.backbones.resnet import ResNet
from icconv_mm.layers import PyConv2d
from icconv_mm.registry import MODELS

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


@pytest.mark.parametrize('name', ['icconv_mm.PyConvResNet', 'PyConvResNet'])
def test_is_built_from_a_config(name, x):
    net = MODELS.build(Config({'backbone': {'type': name, 'depth': 18, **TINY, 'style': 'pytorch'}}).backbone)
    shapes = [tuple(out.shape) for out in net(x)]
    assert shapes == [(2, 16, 16, 24), (2, 32, 8, 12), (2, 64, 4, 6), (2, 128, 2, 3)]


@pytest.mark.parametrize(('cls', 'settings'), [(PyConvResNet, TINY), (PyConvHGResNet, TINY_HG)])
def test_has_the_outputs_of_a_resnet(cls, settings, x):
    net = cls(50, **settings).eval()
    expected = [tuple(out.shape) for out in ResNet(50, base_channels=16).eval()(x)]
    assert [tuple(out.shape) for out in net(x)] == expected
    assert net.out_channels == [64, 128, 256, 512]


def test_levels_of_the_stages():
    levels = {}
    for cls in (PyConvResNet, PyConvHGResNet):
        net = on_meta(cls, 50)
        for stage in range(1, 5):
            conv = getattr(net, f'layer{stage}')[1].conv2
            convs = conv.pyconv_levels if isinstance(conv, PyConv2d) else [conv]
            table = [(c.kernel_size[0], c.groups, c.in_channels, c.out_channels) for c in convs]
            levels.setdefault(stage, []).append(table)
    assert levels == {
        1: [
            [(3, 1, 64, 16), (5, 4, 64, 16), (7, 8, 64, 16), (9, 16, 64, 16)],
            [(3, 32, 128, 32), (5, 32, 128, 32), (7, 32, 128, 32), (9, 32, 128, 32)],
        ],
        2: [
            [(3, 1, 128, 32), (5, 4, 128, 32), (7, 8, 128, 64)],
            [(3, 32, 256, 64), (5, 64, 256, 64), (7, 64, 256, 128)],
        ],
        3: [[(3, 1, 256, 128), (5, 4, 256, 128)], [(3, 32, 512, 256), (5, 64, 512, 256)]],
        4: [[(3, 1, 512, 512)], [(3, 32, 1024, 1024)]],
    }


def test_keys_do_not_depend_on_the_strides():
    """A checkpoint of the classifier serves every output stride."""
    keys = list(on_meta(PyConvResNet, 50).state_dict())
    assert 'layer1.0.downsample.1.weight' in keys and 'layer1.0.downsample.2.running_var' in keys
    assert 'layer1.0.conv2.pyconv_levels.3.weight' in keys and 'layer4.0.conv2.weight' in keys
    assert not any(key.startswith('layer1.0.downsample.0') for key in keys)
    for settings in ({'output_stride': 8}, {'strides': (1, 1, 1, 1)}):
        assert list(on_meta(PyConvResNet, 50, **settings).state_dict()) == keys


def test_shortcuts():
    net = on_meta(PyConvResNet, 18)
    assert isinstance(net.layer1[0].downsample, nn.MaxPool2d) and net.layer1[0].downsample.stride == 2
    assert net.layer1[1].downsample is None
    pool, conv, norm = net.layer2[0].downsample
    assert (pool.kernel_size, pool.stride, pool.padding) == (3, 2, 1)
    assert conv.stride == (1, 1) and isinstance(norm, _BatchNorm)
    assert isinstance(on_meta(PyConvResNet, 18, two_pyconvs=True).layer3[1].conv2, PyConv2d)
    assert net.layer3[1].conv2.kernel_size == (1, 1)


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


@pytest.mark.parametrize('frozen', [-1, 0, 1, 4])
def test_frozen_stages_do_not_learn(frozen, x):
    net = PyConvResNet(18, **TINY, frozen_stages=frozen).train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    sum(out.sum() for out in net(x)).backward() if frozen < 4 else net(x)
    for name, parameter in net.named_parameters():
        stage = int(name[5]) if name.startswith('layer') else 0
        assert (parameter.grad is None) == (stage <= frozen), name
    for name, value in net.state_dict().items():
        if name.endswith('running_mean'):
            stage = int(name[5]) if name.startswith('layer') else 0
            assert torch.equal(value, before[name]) == (stage <= frozen), name


def test_norms(x):
    net = PyConvResNet(18, **TINY, norm_eval=True).train()
    assert net.training and not any(m.training for m in net.modules() if isinstance(m, _BatchNorm))
    net = PyConvResNet(18, **TINY, norm_cfg={'type': 'GN', 'num_groups': 4})
    assert not any(isinstance(m, _BatchNorm) for m in net.modules()) and net.layer1[0].norm1_name == 'gn1'
    assert all(out.isfinite().all() for out in net(x))


def test_checkpointing_gives_the_same_gradients(x):
    net = PyConvResNet(50, **TINY, norm_eval=True).train()
    grads = []
    for with_cp in (False, True):
        for block in (m for m in net.modules() if hasattr(m, 'with_cp')):
            block.with_cp = with_cp
        net.zero_grad()
        net(x)[-1].square().sum().backward()
        grads.append([p.grad.clone() for p in net.parameters()])
    torch.testing.assert_close(*grads)


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


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_channels_last_and_autocast(dtype, x):
    net = PyConvResNet(18, **TINY).eval()
    expected = net(x)
    with torch.autocast('cpu', dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
        got = copy.deepcopy(net).to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last))
    for one, other in zip(got, expected):
        assert one.dtype == dtype and one.is_contiguous(memory_format=torch.channels_last)
        assert (one - other).abs().max() <= (1e-4 if dtype == torch.float32 else 0.1) * other.abs().max()


@pytest.mark.slow
@pytest.mark.parametrize(('cls', 'settings'), [(PyConvResNet, TINY), (PyConvHGResNet, TINY_HG)])
def test_compiles_to_one_graph(cls, settings, x):
    net = cls(50, **settings).eval()
    torch._dynamo.reset()
    got = torch.compile(net, backend='aot_eager', fullgraph=True)(x)
    for one, other in zip(got, net(x)):
        assert (one - other).abs().max() <= 1e-4 * other.abs().max()


@pytest.mark.slow
@pytest.mark.parametrize(('cls', 'settings'), [(PyConvResNet, TINY), (PyConvHGResNet, TINY_HG)])
def test_exports_to_onnx(cls, settings, x, tmp_path):
    onnx = pytest.importorskip('onnx')
    runtime = pytest.importorskip('onnxruntime')
    net, path = cls(50, **settings).eval(), tmp_path / 'net.onnx'
    legacy = {'dynamo': False} if 'dynamo' in torch.onnx.export.__code__.co_varnames else {}
    torch.onnx.export(net, (x,), str(path), input_names=['x'], dynamic_axes={'x': [0, 2, 3]}, **legacy)
    assert {node.domain for node in onnx.load(path).graph.node} <= {'', 'ai.onnx'}
    session = runtime.InferenceSession(str(path))
    for batch in (x, torch.randn(1, 3, 96, 64)):
        for one, other in zip(session.run(None, {'x': batch.numpy()}), net(batch), strict=True):
            other = other.detach().numpy()
            assert abs(one - other).max() <= 1e-4 * abs(other).max()


@pytest.mark.parametrize(
    ('cls', 'settings', 'message'),
    [
        (PyConvResNet, {'depth': 20}, r'depth must be one of \[18, 34, 50, 101, 152\], got 20'),
        (PyConvHGResNet, {'depth': 18}, r'depth must be one of \[50, 101, 152\], got 18'),
        (PyConvResNet, {'groups': 4}, 'groups and base_width are for bottlenecks, which depth 18 does not have'),
        (PyConvResNet, {'avg_down': True}, 'pools its shortcuts by maximum: avg_down must be False'),
        (PyConvResNet, {'depth': 50, 'two_pyconvs': True}, 'basic blocks, which depth 50 does not have'),
        (
            PyConvResNet,
            {'stage_groups': [(1,)]},
            'must have one entry for each of the 4 stages of the backbone, got 4 and 1',
        ),
        (PyConvResNet, {'stage_groups': [(1, 4)] * 4}, r'\[0\] has 4 levels, \(3, 5, 7, 9\), and .* 2, \(1, 4\): give'),
        (
            PyConvResNet,
            {'stage_kernels': ((3, 5), (3,), (3,), (3,))},
            r'stage_kernels\[0\] has 2 levels, \(3, 5\), and stage_groups\[0\] 4, \(1, 4, 8, 16\): give both tables',
        ),
        (PyConvResNet, {'stage_kernels': (3, 3, 3, 3)}, r'stage_kernels must be a list with a list .* got \(3, 3'),
        (PyConvResNet, {'stage_groups': 4}, 'stage_groups must be a list with a list of numbers, .* got 4'),
        (PyConvResNet, {'stage_kernels': [()] * 4}, r'stage_kernels\[0\] must have 1 to 4 levels, got \(\)'),
        (PyConvResNet, {'stage_kernels': [(3, 4)] * 4, 'stage_groups': [(1, 4)] * 4}, r'layer1: level 1: .* \(4, 4\)'),
        (
            PyConvResNet,
            {'base_channels': 16, 'stage_groups': STAGE_GROUPS},
            'layer1: level 2: 8 groups do not divide its 16 input and 4 output',
        ),
        (PyConvResNet, {'base_channels': 3}, 'layer1: 3 channels are too few for 4 levels'),
        (PyConvResNet, {'strides': (1, 2, 2)}, r'strides must have 4 entries \(num_stages\), got \(1, 2, 2\)'),
        (PyConvResNet, {'output_stride': 4}, r'output_stride must be one of \[8, 16, 32\], got 4'),
        (ResNet, {'output_stride': 4}, r'output_stride must be one of \[8, 16, 32\], got 4'),
        (
            PyConvResNet,
            {'output_stride': 8, 'dilations': (1, 1, 1, 2)},
            r'output_stride=8 sets strides and dilations .* dilations=\(1, 1, 1, 2\)',
        ),
    ],
)
def test_errors(cls, settings, message):
    with pytest.raises(ValueError, match=message):
        cls(**({'depth': 18} | settings))


def test_an_ic_resnet_takes_an_output_stride():
    net = ICResNet(18, 'dense', output_stride=16, base_channels=8)
    assert net(torch.randn(1, 3, 64, 64))[-1].shape[2:] == (4, 4)
