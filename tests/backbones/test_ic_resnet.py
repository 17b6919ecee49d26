import copy
import inspect

import pytest
import torch
from torch import nn

from icconv_mm.backbones import ICResNet, ICResNetV1c, ICResNetV1d, ICResNeXt, PyConvResNet
from icconv_mm.errors import InputTypeError
from icconv_mm.layers import ICConv2d
from icconv_mm.patterns import load_pattern, read_patterns, write_patterns

TINY = {'base_channels': 16}


def inception_layers(net: nn.Module) -> dict[str, ICConv2d]:
    return {name: module for name, module in net.named_modules() if isinstance(module, ICConv2d)}


@pytest.mark.parametrize(('depth', 'layers'), [(18, 16), (34, 32), (50, 16), (101, 33), (152, 50)])
def test_every_3x3_convolution_is_an_inception_convolution(depth, layers):
    with torch.device('meta'):
        net = ICResNet(depth, 'geometric_d4')
    convolutions = inception_layers(net)
    assert len(convolutions) == layers
    assert all(
        list(conv.pattern) == list(load_pattern('geometric_d4', [conv.out_channels])[0])
        for conv in convolutions.values()
    )
    assert not [m for m in net.modules() if type(m) is nn.Conv2d and m.kernel_size == (3, 3)]


@pytest.mark.parametrize('depth', [50, 101])
def test_resnext(depth):
    with torch.device('meta'):
        net = ICResNeXt(depth, 'geometric_d4')
    assert all(conv.groups == 32 for conv in inception_layers(net).values())
    assert net.layer1[0].conv2.weight.shape == (128, 4, 3, 3)
    net = ICResNeXt(50, 'geometric_d4', groups=4, base_width=4, **TINY).eval()
    assert [out.shape[1] for out in net(torch.randn(1, 3, 32, 32))] == [64, 128, 256, 512]


def test_two_networks_with_different_patterns(tmp_path):
    """Nothing is shared between networks: building one does not touch another."""
    torch.manual_seed(0)
    one = ICResNet(18, 'geometric_d4', **TINY).eval()
    x = torch.randn(1, 3, 64, 64)
    before = one(x)
    runs = [[[n // 2, 3, 1], [n // 2, 1, 2]] for n in (c.out_channels for c in inception_layers(one).values())]
    write_patterns(load_pattern(runs), tmp_path / 'own.json')
    other = ICResNet(18, str(tmp_path / 'own.json'), **TINY).eval()
    third = ICResNet(18, 'dense', **TINY).eval()
    for net in (other, third):
        net.load_state_dict(one.state_dict())
    after = [net(x) for net in (one, other, third)]
    assert all(torch.equal(a, b) for a, b in zip(before, after[0]))
    assert not torch.allclose(after[0][-1], after[1][-1]) and not torch.allclose(after[1][-1], after[2][-1])
    assert [list(c.pattern) for c in inception_layers(one).values()] == [
        list(p) for p in load_pattern('geometric_d4', [c.out_channels for c in inception_layers(one).values()])
    ]


def test_stage_dilations_multiply_the_pattern():
    net = ICResNet(18, 'geometric_d2', strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2), deep_stem=True, **TINY).eval()
    assert net(torch.randn(1, 3, 64, 64))[-1].shape[-2:] == (4, 4)
    assert net.layer4[1].conv2.dilation == (1, 1)  # as in the libraries
    conv = net.layer4[1].conv1
    assert conv.dilation == (2, 2) and conv.pattern.max_dilation == 2
    x = torch.randn(1, 128, 9, 9)
    far = x.clone()
    far[:, :, 4, 0] += 1  # four pixels away: dilation 2 of the pattern times 2 of the stage
    moved = (conv(x) - conv(far))[0, :, 4, 4].abs() > 1e-6
    assert not moved[:64].any() and moved[64:].all()


def test_supernet():
    net = ICResNet(18, supernet_d_max=3, **TINY)
    conv = net.layer2[0].conv1
    assert type(conv) is nn.Conv2d and conv.kernel_size == (7, 7) and conv.padding == (3, 3)
    assert not inception_layers(net)
    assert [tuple(out.shape[1:]) for out in net(torch.randn(1, 3, 64, 64))][-1] == (128, 2, 2)
    assert list(net.state_dict()) == list(ICResNet(18, 'dense', **TINY).state_dict())


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_channels_last_and_autocast(dtype):
    net = ICResNet(18, 'geometric_d4', **TINY).eval()
    x = torch.randn(1, 3, 64, 64)
    expected = net(x)
    with torch.autocast('cpu', dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
        got = copy.deepcopy(net).to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last))
    for one, other in zip(got, expected):
        assert one.dtype == dtype and one.is_contiguous(memory_format=torch.channels_last)
        assert (one - other).abs().max() <= (1e-4 if dtype == torch.float32 else 0.1) * other.abs().max()


@pytest.mark.parametrize(('pattern', 'depth'), [('detection/ic_resnet50_k9', 50), ('human_pose/ic_resnet101_k13', 101)])
def test_published_patterns(pattern, depth, published_patterns, monkeypatch, tmp_path):
    monkeypatch.setenv('ICCONV_MM_CACHE', str(tmp_path))
    (tmp_path / 'patterns').symlink_to(published_patterns)
    with torch.device('meta'):
        net = ICResNet(depth, pattern)
    expected = read_patterns(published_patterns / f'{pattern}.json')
    assert [conv.pattern for conv in inception_layers(net).values()] == expected


def test_published_pattern_in_groups(published_patterns):
    path = published_patterns / 'detection/ic_resnext101_32x4d_k9.json'
    with torch.device('meta'):
        net = ICResNeXt(101, path)
    in_groups = read_patterns(path)
    for conv, pattern in zip(inception_layers(net).values(), in_groups):
        size = conv.out_channels // 32
        assert list(conv.pattern) == [(n * size, h, w) for n, h, w in pattern]


@pytest.mark.parametrize('supernet', [None, 4])
def test_a_pattern_or_a_supernet(supernet):
    given = 'neither' if supernet is None else 'both'
    with pytest.raises(ValueError, match=f'ICResNet needs either a pattern or supernet_d_max, got {given}'):
        ICResNet(18, pattern='dense' if supernet else None, supernet_d_max=supernet)
    with pytest.raises(ValueError, match='ICResNeXt needs either'):
        ICResNeXt(50)
    with pytest.raises(ValueError, match=r'^supernet_d_max must be a positive integer, got 0'):
        ICResNet(18, supernet_d_max=0)


@pytest.mark.parametrize('kind', [ICResNetV1c, ICResNetV1d])
def test_stems_and_shortcuts_of_the_variants(kind):
    """They take what ICResNet takes, in its order, and say what they are made of where something else is asked."""
    assert inspect.signature(kind) == inspect.signature(ICResNet)
    with torch.device('meta'):
        net = kind(18, 'dense', out_indices=(1, 3), frozen_stages=2, deep_stem=True, **TINY)
    assert net.out_indices == (1, 3) and net.frozen_stages == 2
    assert net.deep_stem and net.avg_down == (kind is ICResNetV1d)
    for option in kind.fixed_options:
        with pytest.raises(ValueError, match=rf'^{option} of {kind.__name__} is always True, got False'):
            kind(18, pattern='dense', **{option: False})


def test_width_of_a_resnext_by_either_name():
    with torch.device('meta'):
        widths = [ICResNeXt(50, 'dense', **given).base_width for given in ({}, {'width_per_group': 8})]
    assert widths == [4, 8]
    with pytest.raises(ValueError, match='got width_per_group=8 and base_width=4: give one'):
        ICResNeXt(50, 'dense', base_width=4, width_per_group=8)


def test_patterns_that_do_not_fit(published_patterns):
    path = published_patterns / 'detection/ic_resnet50_k9.json'
    file = r'ic_resnet50_k9\.json'
    with pytest.raises(ValueError, match=f'{file}: the network has 33 convolutions to convert, the pattern 16 layers'):
        ICResNet(101, path)
    with pytest.raises(
        ValueError, match=f'{file}: layer 3 .layer1.1.conv2.: the pattern sums to 128, expected 64 channels'
    ):
        ICResNet(18, path)
    with pytest.raises(ValueError, match="'detection/ic_resnet5' is neither a file nor"):
        ICResNet(50, 'detection/ic_resnet5')


@pytest.mark.parametrize('kind', [ICResNet, PyConvResNet])
def test_options_of_other_networks_name_what_converts_them(kind):
    message = f"{kind.__name__} got an unexpected keyword argument 'radix'; .* convert that network with ICBackbone"
    with pytest.raises(TypeError, match=message) as caught:
        kind(50, radix=2, **({'pattern': 'dense'} if kind is ICResNet else {}))
    assert isinstance(caught.value, InputTypeError)
