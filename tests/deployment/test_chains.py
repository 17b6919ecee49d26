"""Which convolutions run by packed filters, and what is done to those that do."""

import copy
import importlib
import io

import pytest
import torch
import torchvision
from deployed_checks import assert_same, checked, count, trained
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from icconv_mm import deploy
from icconv_mm.backbones import ICResNet, PyConvResNet, ResNet
from icconv_mm.deployment.deploy import PackedConv2d, PackedConv2dReLU
from icconv_mm.layers import fast_eval
from icconv_mm.layers.fast_eval import convolve, packs
from icconv_mm.ops import backends, use_backend

pytestmark = pytest.mark.skipif(not backends()['cpu'], reason='not compiled')

layers = importlib.import_module('icconv_mm.deployment.deploy')  # the package has the function of that name
KINDS = (PackedConv2d, PackedConv2dReLU)
X = torch.randn(2, 8, 11, 9).contiguous(memory_format=torch.channels_last)


@pytest.fixture
def calls(monkeypatch) -> list[bool]:
    """Whether each call of the operator took ReLU, in order."""
    seen = []

    def seeing(x, conv, relu=False):
        seen.append(relu)
        return run(x, conv, relu)

    run = fast_eval.packed_conv2d
    for module in (fast_eval, layers):
        monkeypatch.setattr(module, 'packed_conv2d', seeing)
    return seen


def plain(**settings) -> nn.Conv2d:
    torch.manual_seed(0)
    return nn.Conv2d(8, 6, 3, padding=1, **settings).requires_grad_(False)


def same(layer: nn.Module, conv: nn.Module, x: Tensor) -> None:
    """The layer computes the convolution, or its ReLU."""
    y = conv(x)
    torch.testing.assert_close(layer(x), y.relu() if type(layer) is PackedConv2dReLU else y)


def test_the_shape_of_an_output_is_known_before():
    for settings in (dict(stride=2), dict(dilation=(2, 1), groups=2), dict(stride=(1, 3))):
        conv = PackedConv2d.of(plain(**settings))
        assert conv.output_shape(X) == conv(X).shape


# --- in the networks of this package


def test_convolutions_of_a_network_are_packed_in_evaluation(calls):
    model, x = trained(ICResNet(50, 'geometric_d2', base_channels=16)), torch.randn(1, 3, 64, 96)
    with use_backend('reference'), torch.no_grad():
        expected = model(x)
    assert not calls
    with torch.no_grad():
        for one, other in zip(model(x), expected):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4 * other.abs().max().item())
    assert len(calls) == 1 + 16 * 2 + 4  # the stem, two in each block, shortcuts
    calls.clear()
    outputs = model(x)
    assert not calls and outputs[0].requires_grad
    model.train()(x)
    assert not calls


def test_frozen_stages_are_packed_in_training(calls):
    model = ResNet(50, base_channels=16, frozen_stages=1).train()
    sum(map(torch.sum, model(torch.randn(2, 3, 64, 64)))).backward()
    assert len(calls) == 1 + 3 * 3 + 1


def test_without_channels_last_nothing_is_packed(calls):
    model = trained(ResNet(18, base_channels=16, memory_format='preserve'))
    with torch.no_grad():
        assert model(torch.randn(1, 3, 64, 64))[0].is_contiguous()
    assert not calls


@pytest.mark.parametrize('spoil', ['hook', 'padding_mode', 'padding', 'subclass', 'float64'])
def test_convolutions_of_another_kind_are_called(spoil, calls):
    conv, x = plain(), X
    if spoil == 'hook':
        conv.register_forward_hook(lambda module, args, y: y + 1)
    elif spoil == 'padding_mode':
        conv = plain(padding_mode='reflect')
    elif spoil == 'padding':
        conv = nn.Conv2d(8, 6, 3, padding='same').requires_grad_(False)
    elif spoil == 'subclass':
        conv.__class__ = type('Mine', (nn.Conv2d,), {'forward': lambda self, x: x})
    else:
        conv, x = conv.double(), X.double()
    assert torch.equal(convolve(x, conv), conv(x)) and not calls


# --- deployed


@pytest.mark.parametrize('kind', KINDS)
def test_layers(kind, calls):
    conv, layer = plain(), kind.of(plain())
    same(layer, conv, X)
    same(layer, conv, X.contiguous())
    assert calls == [kind is PackedConv2dReLU] * 2
    copied = copy.deepcopy(layer)
    buffer = io.BytesIO()
    torch.save(layer, buffer)
    buffer.seek(0)
    for other in (copied, torch.load(buffer, weights_only=False)):
        assert torch.equal(other(X), layer(X)) and other.state_dict().keys() == {'weight', 'bias'}
    copied.load_state_dict({'weight': torch.zeros(6, 8, 3, 3), 'bias': torch.ones(6)})
    assert torch.equal(copied(X), torch.ones(2, 6, 11, 9))


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
    same(torch.func.vmap(layer), torch.func.vmap(nn.Sequential(conv, *[nn.ReLU()] * layer.relu)), X[None])
    x = X.clone().requires_grad_()
    layer(x).sum().backward()
    assert x.grad.abs().sum() > 0
    torch.jit.trace(layer, X, check_trace=False)
    same(copy.deepcopy(layer).double(), plain().double(), X.double())
    assert not calls


class Counted(Tensor):
    """Filters of another library, say sharded or quantised ones: only torch's own operators know them."""

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        seen.append(function)
        return super().__torch_function__(function, types, args, kwargs or {})


seen = []


@pytest.mark.parametrize('kind', KINDS)
def test_filters_of_a_subclass_are_left_to_torch(kind, calls):
    layer, expected = kind.of(plain()), kind.of(plain())(X)
    layer.weight = nn.Parameter(layer.weight.detach().as_subclass(Counted), requires_grad=False)
    calls.clear()
    torch.testing.assert_close(layer(X).as_subclass(Tensor), expected)
    assert nn.functional.conv2d in seen and not calls


@pytest.mark.parametrize('overwrite', [False, True])
def test_sums(overwrite, calls):
    conv, layer = plain(), PackedConv2d.of(plain())
    z = torch.randn(2, 6, 11, 9)
    same_format = z.contiguous(memory_format=torch.channels_last)
    for addend in (same_format, z, z[:1, :, :1, :1], z.clone().requires_grad_()):
        expected, before = (conv(X) + addend).relu(), addend.detach().clone()
        y = layer.add_relu(X, addend, overwrite)
        torch.testing.assert_close(y, expected)
        assert y.requires_grad == addend.requires_grad
        assert (y is addend) == (overwrite and addend is same_format)
        assert y is addend or torch.equal(addend, before)
    assert len(calls) == 4 - overwrite
    wide = PackedConv2d.of(nn.Conv2d(8, 8, 3, padding=1).requires_grad_(False))
    both = X.clone(memory_format=torch.preserve_format)  # what is read and what is added are one map
    expected = (nn.functional.conv2d(X, wide.weight, wide.bias, padding=1) + X).relu()
    torch.testing.assert_close(wide.add_relu(both, both, overwrite), expected)


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_values_that_are_none_stay_so(dtype):
    """oneDNN's own ReLU makes zeros of them."""
    x = X.clone(memory_format=torch.preserve_format)
    x[0, 3, 4, 4], x[1, 2, 1, 1], x[1, 5, 8, 8] = float('nan'), float('inf'), -float('inf')
    conv, z = plain().to(dtype), torch.randn(2, 6, 11, 9).contiguous(memory_format=torch.channels_last).to(dtype)
    z[0, 0, 0, 0], x = float('nan'), x.to(dtype)
    for _ in range(3):  # packed, packed and kept, kept
        y, expected = PackedConv2dReLU.of(conv)(x), conv(x).relu()
        assert (
            y.isnan().sum() > 9
            and torch.equal(y.isnan(), expected.isnan())
            and torch.equal(y.isinf(), expected.isinf())
        )
        expected, addend = (conv(x) + z).relu(), z.clone(memory_format=torch.preserve_format)
        y = PackedConv2d.of(conv).add_relu(x, addend, overwrite=True)
        assert (y is addend) == packs(dtype)  # not every processor has a kernel for bfloat16
        assert torch.equal(y.isnan(), expected.isnan()) and torch.equal(y.isinf(), expected.isinf())


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_borders_wider_than_a_kernel_are_left_to_torch(dtype, calls):
    """oneDNN 3.7 crashes at 1-wide maps with such borders, a stride and a dilation."""
    conv = nn.Conv2d(4, 4, (3, 1), 2, padding=1, dilation=2).requires_grad_(False).to(dtype)
    x = torch.randn(1, 4, 9, 5, dtype=dtype).contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(PackedConv2d.of(conv)(x), conv(x))
    assert not calls


@pytest.mark.parametrize('x', [X[:, :4], X.double(), X[:, :, :2, :2]], ids=['channels', 'dtype', 'size'])
def test_errors_are_those_of_torch(x):
    conv, errors = nn.Conv2d(8, 6, 5).requires_grad_(False), []
    for layer in (conv, PackedConv2d.of(conv)):
        with pytest.raises(RuntimeError) as error:
            layer(x)
        errors.append(str(error.value))
    assert errors[0] == errors[1]


NETWORKS = {
    # with ReLU; without: last convolutions of blocks and shortcuts
    'torchvision 50': (lambda: torchvision.models.resnet50(), 1, 52),
    'ours 50': (lambda: ResNet(50, base_channels=16), 1 + 32, 16 + 4),
    'inception 50': (lambda: ICResNet(50, 'geometric_d2', base_channels=16), 1 + 16, 16 + 4),
    'pyramidal 50': (lambda: PyConvResNet(50, base_channels=64), 1 + 16 + 3, 16 + 4),
}


@pytest.mark.parametrize('name', NETWORKS)
def test_plain_convolutions_of_forms_are_packed(name):
    make, relus, others = NETWORKS[name]
    deployed = checked(make(), torch.randn(1, 3, 64, 96))
    assert (count(deployed, PackedConv2dReLU), count(deployed, PackedConv2d)) == (relus, others)
    # levels of pyramidal convolutions are not called
    assert count(deployed, nn.Conv2d) == sum(len(getattr(module, 'pyconv_levels', ())) for module in deployed.modules())


def test_a_layer_in_two_locations_stays_one():
    conv = nn.Conv2d(8, 8, 3, padding=1)
    deployed = checked(nn.Sequential(conv, nn.Sigmoid(), conv, nn.BatchNorm2d(8)), X)
    assert type(deployed[0]) is PackedConv2d and deployed[0] is deployed[2]


def test_without_the_operator_nothing_is_packed(monkeypatch, calls):
    for module in ('icconv_mm.deployment.deploy', 'icconv_mm.layers.fast_eval'):
        monkeypatch.setattr(importlib.import_module(module), 'packs', lambda dtype: False)
    deployed = checked(ResNet(18, base_channels=16), torch.randn(1, 3, 32, 32))
    assert not count(deployed, PackedConv2d) + count(deployed, PackedConv2dReLU) + len(calls)


def test_forms_that_inference_mode_made():
    model = trained(ResNet(18, base_channels=16))
    with torch.inference_mode():
        assert_same(model, deploy(model), torch.randn(1, 3, 32, 32))
