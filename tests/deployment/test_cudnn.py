"""The inference form on a GPU, with torch's own operators in the place of cuDNN's: it is tested without one."""

import pytest
import torch
import torch.nn.functional as F
import torchvision
from form_checks import assert_same, count, trained
from torch import nn

from icconv_mm import deploy
from icconv_mm.backbones import ICResNet, PyConvResNet, ResNet
from icconv_mm.deployment import cudnn
from icconv_mm.deployment.cudnn import Conv2dAddReLU

X = torch.randn(2, 8, 11, 9)
PICTURE = torch.randn(1, 3, 64, 64)


@pytest.fixture
def calls(monkeypatch) -> list[str]:
    """The operators of cuDNN that were called, in order; they compute with torch's."""
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
    monkeypatch.setattr(cudnn, 'is_supported', lambda model: True)
    monkeypatch.setattr(cudnn, 'is_fused', lambda x, weight: True)
    return seen


def formed(model: nn.Module, *inputs, calls: list[str]) -> tuple[nn.Module, list[str]]:
    """The form of a trained model, which computes the same, and what it called."""
    form = deploy(trained(model))
    calls.clear()
    assert_same(model, form, *inputs)
    return form, list(calls)


NETWORKS = {
    # blocks, each of which has a fused addition; other convolutions with ReLU, the stem among them
    'torchvision 18': (lambda: torchvision.models.resnet18(), 8, 1 + 8),
    'torchvision 50': (lambda: torchvision.models.resnet50(), 16, 1 + 32),
    'torchvision, grouped': (lambda: torchvision.models.resnext50_32x4d(), 16, 1 + 32),
    'ours 18': (lambda: ResNet(18, base_channels=16), 8, 1 + 8),
    'ours 50': (lambda: ResNet(50, base_channels=16), 16, 1 + 32),
    'inception 50': (lambda: ICResNet(50, 'geometric_d2', base_channels=16), 16, 1 + 16),
    'pyramidal 50': (lambda: PyConvResNet(50, base_channels=64), 16, 1 + 16 + 3),
}


@pytest.mark.parametrize('name', NETWORKS)
def test_additions_and_relus_of_networks_are_joined(name, calls):
    make, additions, others = NETWORKS[name]
    form, seen = formed(make(), PICTURE, calls=calls)
    assert (seen.count('add'), seen.count('relu')) == (additions, others)
    assert count(form, Conv2dAddReLU) == additions + others


def test_without_a_gpu_nothing_is_joined():
    assert count(deploy(ICResNet(18, 'geometric_d2', base_channels=16)), Conv2dAddReLU) == 0
    assert not cudnn.is_supported(nn.Conv2d(3, 3, 3)) and not cudnn.is_fused(X, X)


def test_on_the_cpu_the_layer_is_the_plain_composition():
    conv = nn.Conv2d(8, 6, 3, stride=2, padding=1, bias=False).requires_grad_(False)
    layer, z = Conv2dAddReLU.of(conv), torch.randn(2, 6, 6, 5)
    for addend in (z, z[:1, :, :1, :1]):
        torch.testing.assert_close(layer(X, addend), (conv(X) + addend).relu())
    torch.testing.assert_close(layer(X), conv(X).relu())
    assert layer._shape(X) == tuple(conv(X).shape)


def test_a_shortcut_that_broadcasts_is_added_by_torch(calls):
    layer = Conv2dAddReLU.of(nn.Conv2d(8, 6, 3, padding=1).requires_grad_(False))
    layer(X, torch.randn(2, 6, 11, 9))
    layer(X, torch.randn(2, 6, 1, 1))
    layer(X)
    assert calls == ['add', 'relu']


class Block(nn.Module):
    """A block whose code subclasses write, inside a network."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 1)
        self.bn1, self.bn2, self.relu = nn.BatchNorm2d(8), nn.BatchNorm2d(8), nn.ReLU(inplace=True)

    def forward(self, x):
        return self.relu(self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x))))) + x)


class Method(Block):
    def forward(self, x):
        return F.relu(x.add(self.bn1(self.conv1(x))))


class InPlace(Block):
    def forward(self, x):
        out = self.bn1(self.conv1(x))
        out += x
        return self.relu(out)


class TwoConvolutions(Block):
    def forward(self, x):
        return self.relu(self.bn1(self.conv1(x)) + self.bn2(self.conv2(x)))


class ReadAgain(Block):
    """Somebody else reads the sum, or the convolution: neither can go."""

    def forward(self, x):
        y = self.bn1(self.conv1(x))
        total = y + x
        return self.relu(total + 0) + total.sigmoid() + F.relu(y)


class Scaled(Block):
    def forward(self, x):
        return self.relu(torch.add(self.bn1(self.conv1(x)), x, alpha=2))


class Number(Block):
    def forward(self, x):
        return self.relu(self.bn1(self.conv1(x)) + 1)


class InputChanges(Block):
    """What the convolution reads is written to before its result is rectified."""

    def forward(self, x):
        x = x * 1
        y = self.bn1(self.conv1(x))
        x.add_(1)
        return self.relu(y + x)


class Doubled(Block):
    def forward(self, x):
        y = self.bn1(self.conv1(x))
        return self.relu(y + y)


class Leaky(Block):
    def forward(self, x):
        return F.leaky_relu(self.bn1(self.conv1(x)) + x)


# block -> what it calls of cuDNN
BLOCKS = {
    Block: ['relu', 'add'],
    Method: ['add'],
    InPlace: ['add'],
    TwoConvolutions: ['add'],
    ReadAgain: [],
    Scaled: [],
    Number: [],
    InputChanges: [],
    Doubled: [],
    Leaky: [],
}


@pytest.mark.parametrize('kind', BLOCKS, ids=lambda kind: kind.__name__)
def test_only_what_the_code_shows_is_fused(kind, calls):
    form, seen = formed(nn.Sequential(kind(), nn.Identity()), X, calls=calls)
    assert seen == BLOCKS[kind]
    assert_same(nn.Sequential(form), nn.Sequential(form), X)  # nothing is changed by a call
    with pytest.raises(RuntimeError, match='cannot be trained'):
        form.train()


@pytest.mark.parametrize('change', ['hook', 'replicated border', 'same padding'])
def test_convolutions_that_stay(calls, change):
    block = Block()
    if change == 'hook':
        block.conv2.register_forward_hook(lambda *_: None)
    elif change == 'same padding':
        block.conv2 = nn.Conv2d(8, 8, 3, padding='same')
    else:
        block.conv2 = nn.Conv2d(8, 8, 3, padding=1, padding_mode='replicate')
    _, seen = formed(nn.Sequential(block), X, calls=calls)
    assert seen == ['relu']


def test_exports_hold_ordinary_operators(calls):
    form, _ = formed(ICResNet(50, 'geometric_d2', base_channels=16), PICTURE, calls=calls)
    calls.clear()
    traced = torch.jit.trace(form, PICTURE, check_trace=False)  # which calls the form itself
    assert not calls and 'cudnn_convolution' not in str(traced.inlined_graph)
    assert_same(form, traced, PICTURE)


def test_a_trial_that_fails_leaves_the_model_as_it_is(monkeypatch, caplog):
    """Some versions of cuDNN refuse a dtype; others might compute something else."""
    cudnn._works.cache_clear()
    monkeypatch.setattr(torch.backends.cudnn, 'is_available', lambda: True)
    monkeypatch.setattr(cudnn, 'is_fused', lambda x, weight: True)

    def refuse(*_):
        raise RuntimeError('CUDNN_STATUS_NOT_SUPPORTED')

    for stub, expected in ((refuse, False), (lambda x, *_: x * 0, False)):
        monkeypatch.setattr(torch, 'cudnn_convolution_relu', stub)
        monkeypatch.setattr(torch, 'cudnn_convolution_add_relu', stub)
        assert cudnn._works(torch.device('cpu'), torch.float32) is expected
        cudnn._works.cache_clear()
