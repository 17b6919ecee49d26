"""The inference form on a CPU: convolutions with packed filters compute what torch's do, whatever is done to them."""

import copy
import io
import random
from concurrent.futures import ThreadPoolExecutor

import mmcv.ops  # noqa: F401  registers DCNv2
import pytest
import torch
import torchvision
from form_checks import assert_same, checked, count, trained
from mmcv.cnn import ConvModule
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from icconv_mm import deploy
from icconv_mm.backbones import ICResNet, PyConvResNet, ResNet
from icconv_mm.deployment import onednn
from icconv_mm.deployment.onednn import PackedConv2d, PackedConv2dReLU
from icconv_mm.ops import use_backend

KINDS = (PackedConv2d, PackedConv2dReLU)
X = torch.randn(2, 8, 11, 9)


@pytest.fixture
def calls(monkeypatch) -> list[str]:
    """What oneDNN was asked for, in order: 'pack', 'none', 'relu'."""
    seen = []

    def filters(*args):
        seen.append('pack')
        return pack(*args)

    def convolution(*args):
        seen.append(args[-1])
        return convolve(*args)

    pack, convolve = onednn.onednn_filters, onednn.onednn_convolution
    monkeypatch.setattr(onednn, 'onednn_filters', filters)
    monkeypatch.setattr(onednn, 'onednn_convolution', convolution)
    return seen


def plain(seed: int = 0, **settings) -> nn.Conv2d:
    torch.manual_seed(seed)
    return nn.Conv2d(8, 6, 3, padding=1, **settings).requires_grad_(False)


def same(layer: nn.Module, conv: nn.Module, x: Tensor, tolerance: float = 1e-5) -> None:
    """The layer computes the convolution, or its ReLU."""
    y = conv(x)
    y = y.relu() if isinstance(layer, PackedConv2dReLU) else y
    assert layer(x).shape == y.shape
    torch.testing.assert_close(layer(x), y, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize('seed', range(30))
def test_random_convolutions(seed, calls):
    draw = random.Random(seed)
    torch.manual_seed(seed)
    groups = draw.choice([1, 1, 2, 8])
    channels = [groups * draw.choice([1, 2, 3, 8, 16]) for _ in range(2)]
    kernel, stride = draw.choice([1, 3, 5, (1, 3)]), draw.choice([1, 2, (2, 1)])
    settings = draw.choice([0, 1, 3]), draw.choice([1, 2]), groups
    conv = nn.Conv2d(*channels, kernel, stride, *settings, bias=draw.random() < 0.5).requires_grad_(False)
    layer = draw.choice(KINDS).of(conv)
    for _ in range(3):  # sizes change
        x = torch.randn(draw.choice([1, 2]), channels[0], draw.randint(10, 30), draw.randint(10, 30))
        same(layer, conv, x.contiguous(memory_format=draw.choice([torch.channels_last, torch.contiguous_format])))
    assert 'pack' in calls and calls[-1] == ('relu' if type(layer) is PackedConv2dReLU else 'none')


@pytest.mark.parametrize('kind', KINDS)
def test_filters_are_packed_when_size_or_content_change(kind, calls):
    conv, layer = plain(), kind.of(plain())
    for change, packs in (
        (lambda: None, 1),
        (lambda: None, 0),
        (lambda: layer.load_state_dict(plain(1).state_dict()), 1),
        (lambda: layer.weight.mul_(2), 1),
        (lambda: layer.bias.add_(1), 0),
        (lambda: setattr(layer, 'weight', nn.Parameter(plain(2).weight, requires_grad=False)), 1),
    ):
        change()
        conv.load_state_dict(layer.state_dict())
        calls.clear()
        same(layer, conv, X)
        assert calls.count('pack') == packs
    calls.clear()
    same(layer, conv, X[:, :, :7])
    same(layer, conv, X)
    assert calls.count('pack') == 2


def test_copies_and_files_have_no_packed_filters():
    layer = PackedConv2dReLU.of(plain())
    layer(X)
    buffer = io.BytesIO()
    torch.save(layer, buffer)
    buffer.seek(0)
    for other in (copy.deepcopy(layer), torch.load(buffer, weights_only=False)):
        assert '_packed' not in vars(other) and other.state_dict().keys() == {'weight', 'bias'}
        assert torch.equal(other(X), layer(X))
    assert '_packed' in vars(layer)


def test_threads_with_other_sizes_share_a_layer():
    layer, conv = PackedConv2d.of(plain()), plain()
    inputs = [torch.randn(1, 8, 6 + number % 5, 9) for number in range(40)]
    with ThreadPoolExecutor(4) as pool:
        for x, y in zip(inputs, pool.map(layer, inputs)):
            torch.testing.assert_close(y, conv(x))


@pytest.mark.parametrize('kind', KINDS)
def test_where_torch_computes(kind, calls):
    layer, conv = kind.of(plain()), plain()
    with use_backend('reference'):
        same(layer, conv, X)
    with torch.autocast('cpu'):
        assert layer(X).dtype == torch.bfloat16
    with FlopCounterMode(display=False) as counter:
        layer(X)
    assert counter.get_total_flops() == 2 * 2 * 6 * 8 * 9 * 11 * 9
    same(layer, conv, X[0])
    assert layer(X[:0]).shape == (0, 6, 11, 9)
    torch.func.vmap(layer)(X[None])
    x = X.clone().requires_grad_()
    layer(x).sum().backward()
    assert x.grad.abs().sum() > 0
    assert torch.equal(torch.jit.trace(layer, X)(X), layer.eval()(X)) and 'pack' in calls  # by the last call alone
    assert not onednn._works(torch.float64)
    calls.clear()
    same(layer.double(), conv.double(), X.double())
    assert not calls


@pytest.mark.parametrize('x', [X[:, :4], X.double()], ids=['channels', 'dtype'])
def test_errors_are_those_of_torch(x):
    errors = []
    for conv in (plain(), PackedConv2d.of(plain())):
        with pytest.raises(RuntimeError) as error:
            conv(x)
        errors.append(str(error.value))
    assert errors[0] == errors[1]


def test_a_map_below_the_kernel():
    conv = nn.Conv2d(8, 6, 5).requires_grad_(False)
    with pytest.raises(RuntimeError, match="Kernel size can't be greater than actual input size"):
        PackedConv2d.of(conv)(X[:, :, :3])


def test_bfloat16(calls):
    if not onednn._works(torch.bfloat16):
        assert not onednn.packs(plain().bfloat16())
        return
    same(PackedConv2dReLU.of(plain().bfloat16()), plain().bfloat16(), X.bfloat16(), 0.02)
    assert calls[0] == 'pack'


@pytest.mark.parametrize('dynamic', [False, True])
def test_in_one_graph(dynamic):
    form = checked(ResNet(18, base_channels=16, out_indices=(3,)), torch.randn(1, 3, 64, 64))
    compiled = torch.compile(form, fullgraph=True, dynamic=dynamic, backend='aot_eager')
    for size in (64, 96):
        assert_same(form, compiled, torch.randn(1, 3, size, size))


NETWORKS = {
    # with ReLU; without: last convolutions of blocks and shortcuts
    'torchvision 50': (lambda: torchvision.models.resnet50(), 1, 52),
    'ours 50': (lambda: ResNet(50, base_channels=16), 1 + 32, 16 + 4),
    'inception 50': (lambda: ICResNet(50, 'geometric_d2', base_channels=16), 1 + 16, 16 + 4),
    'pyramidal 50': (lambda: PyConvResNet(50, base_channels=64), 1 + 16 + 3, 16 + 4),
}


@pytest.mark.parametrize('name', NETWORKS)
def test_plain_convolutions_of_networks_are_packed(name):
    make, relus, others = NETWORKS[name]
    form = checked(make(), torch.randn(1, 3, 64, 96))
    assert (count(form, PackedConv2dReLU), count(form, PackedConv2d)) == (relus, others)
    assert count(form, nn.Conv2d) == sum(hasattr(m, 'pyconv_levels') and len(m.pyconv_levels) for m in form.modules())


def test_a_layer_in_two_places_stays_one():
    conv = nn.Conv2d(8, 8, 3, padding=1)
    form = checked(nn.Sequential(conv, nn.Sigmoid(), conv, nn.BatchNorm2d(8)), X)
    assert type(form[0]) is PackedConv2d and form[0] is form[2]


def test_offsets_of_deformable_convolutions_keep_their_format():
    """Their operator reads memory without asking for its format."""
    model = nn.Sequential(
        ConvModule(8, 16, 3, padding=1, norm_cfg=dict(type='BN')),
        ConvModule(16, 16, 3, padding=1, conv_cfg=dict(type='DCNv2'), norm_cfg=dict(type='BN')),
    )
    nn.init.normal_(model[1].conv.conv_offset.weight, std=0.3)
    form = checked(model, X)
    assert type(form[0].conv) is PackedConv2dReLU and type(form[1].conv.conv_offset) is nn.Conv2d


def test_a_form_made_in_inference_mode_is_packed(calls):
    model = trained(ResNet(18, base_channels=16))
    with torch.inference_mode():
        form = deploy(model)
        form(torch.randn(1, 3, 32, 32))
    assert 'pack' in calls and not any(parameter.is_inference() for parameter in form.parameters())


def test_without_onednn_nothing_is_packed(monkeypatch, calls):
    monkeypatch.setattr(onednn, '_works', lambda dtype: False)
    form = checked(ResNet(18, base_channels=16), torch.randn(1, 3, 32, 32))
    assert not count(form, PackedConv2d) + count(form, PackedConv2dReLU) + len(calls)
