"""Deployed networks on a GPU, with torch's own operators in the place of cuDNN's: it is tested without one."""

import copy
import io

import pytest
import torch
import torch.nn.functional as F
import torchvision
from deployed_checks import assert_same, count, trained
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from icconv_mm import deploy
from icconv_mm.backbones import ICResNet, PyConvResNet, ResNet
from icconv_mm.layers.cudnn_conv import CudnnConv2d, CudnnConv2dReLU
from icconv_mm.ops.steps import cudnn_conv

X = torch.randn(2, 8, 11, 9)
PICTURE = torch.randn(1, 3, 64, 64)
KINDS = (CudnnConv2d, CudnnConv2dReLU)


@pytest.fixture
def calls(monkeypatch) -> list[str]:
    """The operators of cuDNN that were called, in order; they compute with torch's, and this is their device."""
    seen = []

    def rectified(x, weight, bias, stride, padding, dilation, groups):
        seen.append('relu')
        return F.conv2d(x, weight, bias, stride, padding, dilation, groups).relu()

    def added(x, weight, z, alpha, bias, stride, padding, dilation, groups):
        seen.append('add')
        y = F.conv2d(x, weight, bias, stride, padding, dilation, groups)
        assert z.shape == y.shape
        return (y + alpha * z).relu()

    monkeypatch.setattr(torch, 'cudnn_convolution_relu', rectified)
    monkeypatch.setattr(torch, 'cudnn_convolution_add_relu', added)
    monkeypatch.setattr(cudnn_conv, '_DEVICE', 'cpu')
    monkeypatch.setattr(cudnn_conv, '_fuses', lambda device, dtype: True)
    return seen


def plain(**settings) -> nn.Conv2d:
    torch.manual_seed(0)
    return nn.Conv2d(8, 6, 3, padding=1, **settings).requires_grad_(False)


# --- the layers


@pytest.mark.parametrize('bias', [False, True])
def test_layers(bias, calls):
    conv, z = plain(stride=2, bias=bias), torch.randn(2, 6, 6, 5)
    layer, rectified = (kind.of(conv) for kind in KINDS)
    torch.testing.assert_close(layer(X), conv(X))
    torch.testing.assert_close(rectified(X), conv(X).relu())
    for overwrite in (False, True):
        before = z.clone()
        torch.testing.assert_close(layer.add_relu(X, z, overwrite), (conv(X) + z).relu())
        assert torch.equal(z, before)
    assert calls == ['relu', 'add', 'add']
    buffer = io.BytesIO()
    torch.save(rectified, buffer)
    buffer.seek(0)
    for other in (copy.deepcopy(rectified), torch.load(buffer, weights_only=False)):
        assert torch.equal(other(X), rectified(X)) and other.state_dict().keys() == conv.state_dict().keys()


def reference(conv: nn.Module, x: Tensor, z: Tensor) -> Tensor:
    return (conv(x) + z).relu()


def test_where_torch_computes(calls, monkeypatch):
    layer, conv, z = CudnnConv2d.of(plain()), plain(), torch.randn(2, 6, 11, 9)
    rectified = CudnnConv2dReLU.of(plain())
    for addend in (z[:1, :, :1, :1], z.double()):  # one that broadcasts, one of another dtype
        torch.testing.assert_close(layer.add_relu(X, addend), reference(conv, X, addend))
    with FlopCounterMode(display=False) as counter:
        rectified(X)
        layer.add_relu(X, z)
    assert counter.get_total_flops() == 2 * 2 * 2 * 6 * 8 * 9 * 11 * 9
    torch.testing.assert_close(torch.func.vmap(rectified)(X[None])[0], conv(X).relu())
    for x, addend in ((X.clone().requires_grad_(), z), (X, z.clone().requires_grad_())):
        layer.add_relu(x, addend).sum().backward()
        assert (x if x.requires_grad else addend).grad.abs().sum() > 0
    x = X.clone().requires_grad_()
    rectified(x).sum().backward()
    assert x.grad.abs().sum() > 0
    assert rectified(X[0]).shape == (6, 11, 9) and rectified(X[:0]).shape == (0, 6, 11, 9)
    torch.jit.trace(rectified, X, check_trace=False)
    with torch.backends.cudnn.flags(enabled=False):
        rectified(X)
    monkeypatch.setattr(cudnn_conv, '_DEVICE', 'cuda')
    torch.testing.assert_close(layer.add_relu(X, z), reference(conv, X, z))
    torch.testing.assert_close(rectified(X), conv(X).relu())
    assert not calls


# --- deployed


def deploy_and_run(model: nn.Module, *inputs, calls: list[str]) -> tuple[nn.Module, list[str]]:
    """A trained model deployed, which computes the same, and what it called."""
    deployed = deploy(trained(model))
    calls.clear()
    assert_same(model, deployed, *inputs)
    return deployed, list(calls)


NETWORKS = {
    # sums in convolutions; other convolutions with ReLU, the stem among them
    'torchvision 50': (lambda: torchvision.models.resnet50(), 0, 1),  # its code shares a ReLU and adds by itself
    'ours 18': (lambda: ResNet(18, base_channels=16), 8, 1 + 8),
    'ours 50': (lambda: ResNet(50, base_channels=16), 16, 1 + 32),
    'pooled shortcuts': (lambda: ResNet(50, base_channels=16, avg_down=True), 16, 1 + 32),
    'inception 50': (lambda: ICResNet(50, 'geometric_d2', base_channels=16), 16, 1 + 16),
    'inception 18': (lambda: ICResNet(18, 'geometric_d2', base_channels=16), 0, 1),
    'pyramidal 50': (lambda: PyConvResNet(50, base_channels=64), 16, 1 + 16 + 3),
}


@pytest.mark.parametrize('name', NETWORKS)
def test_sums_and_relus_of_networks_are_joined(name, calls):
    make, sums, others = NETWORKS[name]
    deployed, seen = deploy_and_run(make(), PICTURE, calls=calls)
    assert (seen.count('add'), seen.count('relu')) == (sums, others)
    assert count(deployed, CudnnConv2dReLU) == others


def test_without_a_gpu_nothing_is_joined():
    deployed = deploy(ICResNet(18, 'geometric_d2', base_channels=16))
    assert count(deployed, CudnnConv2d) == count(deployed, CudnnConv2dReLU) == 0


@pytest.mark.parametrize('change', ['hook', 'replicated border', 'same padding'])
def test_convolutions_that_stay(calls, change):
    model = ResNet(18, base_channels=16)
    block = model.layer1[0]
    if change == 'hook':
        block.conv2.register_forward_hook(lambda *_: None)
    elif change == 'same padding':
        block.conv2 = nn.Conv2d(16, 16, 3, padding='same', bias=False)
    else:
        block.conv2 = nn.Conv2d(16, 16, 3, padding=1, padding_mode='replicate', bias=False)
    _, seen = deploy_and_run(model, PICTURE, calls=calls)
    assert (seen.count('add'), seen.count('relu')) == (7, 1 + 8)


def test_a_listener_hears_the_convolution_alone(calls):
    deployed, _ = deploy_and_run(ResNet(18, base_channels=16), PICTURE, calls=calls)
    block, heard = deployed.layer1[0], []
    x = torch.randn(1, 16, 8, 8)
    expected = block.conv2(block.conv1(x))
    block.conv2.register_forward_hook(lambda module, args, y: heard.append(y.clone()))
    calls.clear()
    torch.testing.assert_close(block(x), (expected + x).relu())
    torch.testing.assert_close(heard[0], expected)
    assert calls == ['relu']


def test_exports_hold_ordinary_operators(calls):
    deployed, _ = deploy_and_run(ICResNet(50, 'geometric_d2', base_channels=16), PICTURE, calls=calls)
    calls.clear()
    traced = torch.jit.trace(deployed, PICTURE, check_trace=False)  # which calls the deployed model itself
    assert not calls and 'cudnn_convolution' not in str(traced.inlined_graph)
    assert_same(deployed, traced, PICTURE)


def test_in_one_graph(calls):
    deployed, _ = deploy_and_run(ResNet(18, base_channels=16, out_indices=(3,)), PICTURE, calls=calls)
    compiled = torch.compile(deployed, fullgraph=True, backend='aot_eager')
    with torch.no_grad():
        expected = deployed(PICTURE)
        calls.clear()
        torch.testing.assert_close(compiled(PICTURE), expected, rtol=1e-4, atol=1e-4)
    assert not calls
