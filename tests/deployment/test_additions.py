"""Sums that are fused on the CPU, and which maps they may be written over."""

import copy
import io

import pytest
import torch
import torchvision
from form_checks import assert_same, checked, count, trained
from residual_blocks import BLOCKS, Block
from torch import Tensor, nn

from icconv_mm import deploy
from icconv_mm.backbones import ICResNet, PyConvResNet, ResNet
from icconv_mm.deployment.additions import Addend, BlockSequence
from icconv_mm.layers import packed_conv
from icconv_mm.layers.packed_conv import PackedConv2dAddReLU, PackedConv2dReLU
from icconv_mm.ops import backends

pytestmark = pytest.mark.skipif(not backends()['cpu'], reason='not compiled')

X = torch.randn(2, 8, 11, 9)
PICTURE = torch.randn(1, 3, 64, 64)


@pytest.fixture
def overwritten(monkeypatch) -> list[Tensor]:
    """The maps that were written over."""
    seen = []

    def seeing(z, *args, **options):
        seen.append(z)
        run(z, *args, **options)

    run = packed_conv.packed_conv2d_add_relu_
    monkeypatch.setattr(packed_conv, 'packed_conv2d_add_relu_', seeing)
    return seen


class Shrinking(Block):
    """With a shortcut of its own."""

    def __init__(self):
        super().__init__()
        self.conv2 = nn.Conv2d(8, 8, 1, stride=2)
        self.downsample = nn.Sequential(nn.Conv2d(8, 8, 1, stride=2, bias=False), nn.BatchNorm2d(8))

    def forward(self, x):
        return self.relu(self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x))))) + self.downsample(x))


class WithView(Shrinking):
    """The shortcut may be the input itself."""

    def __init__(self):
        super().__init__()
        self.conv2, self.downsample = nn.Conv2d(8, 8, 1), nn.Sequential(nn.Dropout(), nn.Identity())


@pytest.mark.parametrize('kind', BLOCKS, ids=lambda kind: kind.__name__)
def test_only_what_the_code_shows_is_fused(kind):
    form = checked(nn.Sequential(nn.Sequential(kind(), kind(), nn.Identity())), X)
    numbers = {PackedConv2dReLU: BLOCKS[kind].count('relu'), PackedConv2dAddReLU: BLOCKS[kind].count('add')}
    assert {each: count(form, each) for each in numbers} == {each: 2 * number for each, number in numbers.items()}


NETWORKS = {
    # blocks whose last convolution takes the sum, each of which writes it over the shortcut
    'torchvision 18': (lambda: torchvision.models.resnet18(), 8 - 1),  # the first adds the stem's output, to be kept
    'torchvision 50': (lambda: torchvision.models.resnet50(), 16),
    'torchvision, grouped': (lambda: torchvision.models.resnext50_32x4d(), 16),
    'ours 18': (lambda: ResNet(18, base_channels=16), 8 - 1),
    'ours 50': (lambda: ResNet(50, base_channels=16), 16),
    'ours, pooled shortcuts': (lambda: ResNet(50, base_channels=16, avg_down=True), 16),
    'inception 50': (lambda: ICResNet(50, 'geometric_d2', base_channels=16), 16),
    'pyramidal 50': (lambda: PyConvResNet(50, base_channels=64), 16),
}


@pytest.mark.parametrize('name', NETWORKS)
def test_sums_of_networks_are_written_over_shortcuts(name, overwritten):
    make, number = NETWORKS[name]
    form, picture = checked(make(), PICTURE), PICTURE.clone()
    assert len(overwritten) == number and torch.equal(picture, PICTURE)
    buffer = io.BytesIO()
    torch.save(form, buffer)
    buffer.seek(0)
    for other in (copy.deepcopy(form), torch.load(buffer, weights_only=False)):
        overwritten.clear()
        assert_same(form, other, PICTURE)
        assert len(overwritten) == 2 * number


def test_rows_of_blocks(overwritten):
    row = nn.Sequential(Block(), Block(), Shrinking(), WithView(), nn.Identity(), Block())
    form, x = checked(nn.Sequential(row), X), X.clone()
    assert type(form[0]) is BlockSequence
    assert form[0].addends == [Addend.INPUT, Addend.INPUT, Addend.OWN, Addend.OTHER, None, Addend.INPUT]
    assert len(overwritten) == 2 and torch.equal(x, X)  # the second's and the third's
    with pytest.raises(RuntimeError, match='cannot be trained'):
        form.train()


def test_blocks_that_are_called_alone_overwrite_nothing(overwritten):
    form = deploy(trained(nn.Sequential(nn.Sequential(Block(), Block()))))
    x = form[0][0](X)
    before = x.clone()
    form[0][1](x)
    assert torch.equal(x, before) and not overwritten


@pytest.mark.parametrize('where', ['layer1.0', 'layer1.1', 'layer1.1.conv1', 'layer1.0.conv3', 'layer2.0.downsample'])
@pytest.mark.parametrize('kind', ['forward', 'forward_pre'])
def test_who_listens_keeps_what_was_heard(where, kind):
    model = trained(torchvision.models.resnet50())
    form, heard = deploy(model), []

    def listen(module, args, output=None):
        maps = [*args[:1], *([] if output is None else [output])]
        heard.append([(each, each.clone()) for each in maps])

    getattr(form.get_submodule(where), f'register_{kind}_hook')(listen)
    assert_same(model, form, PICTURE)
    assert len(heard) == 1 and all(torch.equal(one, other) for one, other in heard[0])


def test_a_graph_of_the_form_overwrites_nothing(overwritten):
    model = trained(torchvision.models.resnet50())
    graph = torch.fx.symbolic_trace(deploy(model))
    assert_same(model, graph, PICTURE)
    assert not overwritten


def test_with_gradients_and_in_other_formats_nothing_is_overwritten(overwritten):
    form = checked(nn.Sequential(nn.Sequential(Block(), Block())), X)
    overwritten.clear()
    x = X.clone().requires_grad_()
    form(x).sum().backward()
    assert x.grad.abs().sum() > 0 and not overwritten
    with torch.autocast('cpu'):
        form(X)
    torch.jit.trace(form, X, check_trace=False)
    torch.compile(form, fullgraph=True, backend='eager')(X)
    assert not overwritten


class Named(nn.Sequential):
    """With an attribute and a method; the code that calls it may read both."""

    width = 8

    def first(self):
        return self[0]


class Reading(nn.Module):
    def __init__(self, row):
        super().__init__()
        self.row = row

    def forward(self, x):
        return self.row(x) * self.row.scale


@pytest.mark.parametrize('kind', [nn.Sequential, Named])
def test_rows_keep_their_attributes_and_hooks(kind, overwritten):
    row, heard = kind(Block(), Block()), []
    row.scale = 2
    row.register_forward_hook(lambda module, args, output: heard.append(output))
    model = Reading(row)
    form = checked(model, X)
    assert len(heard) == 2 and isinstance(form.row, BlockSequence if kind is nn.Sequential else Named)
    assert len(overwritten) == (kind is nn.Sequential)
