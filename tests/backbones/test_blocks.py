"""Deployed stages on the CPU: which maps blocks write over, and which they leave."""

import copy
import importlib
import io

import pytest
import torch
from deployed_checks import assert_same, checked, trained
from torch import Tensor, nn

from icconv_mm import deploy
from icconv_mm.backbones import ICResNet, PyConvResNet, ResNet
from icconv_mm.ops import backends, use_backend

pytestmark = pytest.mark.skipif(not backends()['cpu'], reason='not compiled')

layers = importlib.import_module('icconv_mm.deployment.deploy')  # the package has the function of that name
IMAGE = torch.randn(1, 3, 64, 64)


@pytest.fixture
def overwritten(monkeypatch) -> list[Tensor]:
    """The maps that were written over."""
    seen = []

    def seeing(z, *args, **options):
        seen.append(z)
        run(z, *args, **options)

    run = layers.packed_conv2d_add_relu_
    monkeypatch.setattr(layers, 'packed_conv2d_add_relu_', seeing)
    return seen


def resnet(depth: int = 50, **options) -> nn.Module:
    return ResNet(depth, base_channels=16, **options)


NETWORKS = {
    'ours 18': (lambda: resnet(18), 8 - 1),  # the first block adds what the stem made, which is not the stage's own
    'ours 50': (lambda: resnet(), 16),
    'pooled shortcuts': (lambda: resnet(avg_down=True), 16),
    'dilated': (lambda: resnet(output_stride=8), 16),
    'inception 18': (lambda: ICResNet(18, 'geometric_d2', base_channels=16), 0),
    'inception 50': (lambda: ICResNet(50, 'geometric_d2', base_channels=16), 16),
    'pyramidal 50': (lambda: PyConvResNet(50, base_channels=64), 16),
    'group norm': (lambda: resnet(norm_cfg=dict(type='GN', num_groups=4)), 0),
}


@pytest.mark.parametrize('name', NETWORKS)
@pytest.mark.filterwarnings('ignore:deploy')
def test_sums_are_written_over_shortcuts(name, overwritten):
    make, number = NETWORKS[name]
    deployed, image = checked(make(), IMAGE), IMAGE.clone()
    assert len(overwritten) == number and torch.equal(image, IMAGE)
    buffer = io.BytesIO()
    torch.save(deployed, buffer)
    buffer.seek(0)
    for other in (copy.deepcopy(deployed), torch.load(buffer, weights_only=False)):
        overwritten.clear()
        for _ in range(3):  # the filters are packed, kept, and found
            assert_same(deployed, other, IMAGE)
        assert len(overwritten) == 6 * number


def test_a_model_as_it_was_trained_overwrites_nothing(overwritten):
    with torch.no_grad():
        trained(resnet())(IMAGE)
    assert not overwritten


def test_maps_that_others_see_stay(overwritten):
    deployed = deploy(trained(resnet()))
    stage = deployed.layer1
    with torch.no_grad():
        x = deployed.stem_forward(IMAGE.contiguous(memory_format=torch.channels_last))  # as forward does
        before = x.clone()
        y = stage(x)
        assert torch.equal(x, before) and len(overwritten) == 3
        for run in (stage[1], stage[1:], nn.Sequential(stage[1], stage[2])):
            z = stage[0](x)
            before = z.clone()
            run(z)
            assert torch.equal(z, before)
        torch.testing.assert_close(stage[2](stage[1](stage[0](x))), y)


@pytest.mark.parametrize('where', ['layer1.1', 'layer1.0.conv3', 'layer2.0.downsample'])
@pytest.mark.parametrize('kind', ['forward', 'forward_pre', 'global'])
def test_who_listens_keeps_what_was_heard(where, kind):
    model = trained(resnet())
    deployed, heard = deploy(model), []

    def listen(module, args, output=None):
        if module is deployed.get_submodule(where):
            heard.extend((tensor, tensor.clone()) for tensor in (*args[:1], output) if tensor is not None)

    if kind == 'global':
        handle = nn.modules.module.register_module_forward_hook(listen)
    else:
        handle = getattr(deployed.get_submodule(where), f'register_{kind}_hook')(listen)
    with torch.no_grad():
        deployed(IMAGE)
    handle.remove()
    assert heard and all(torch.equal(one, other) for one, other in heard)
    assert_same(model, deployed, IMAGE)


def test_blocks_of_another_kind_keep_their_input(overwritten):
    class Keeping(nn.Conv2d):
        __module__ = 'torch.nn'  # whose layers get channels_last maps

        def forward(self, x):
            self.seen = x
            return super().forward(x)

    model = trained(resnet())
    conv = model.layer1[1].conv1
    model.layer1[1].conv1 = Keeping(conv.in_channels, conv.out_channels, 1, bias=False)
    deployed = deploy(model)
    with torch.no_grad():
        deployed(IMAGE)
        torch.testing.assert_close(deployed.layer1[1].conv1.seen, deployed.layer1[0](deployed.stem_forward(IMAGE)))
    assert len(overwritten) >= 14
    model.layer1[1] = nn.Identity()
    assert_same(model, deploy(model), IMAGE)


def test_where_torch_computes_nothing_is_overwritten(overwritten):
    model = trained(resnet())
    deployed = deploy(model)
    assert_same(model, torch.fx.symbolic_trace(deployed), IMAGE)
    x = IMAGE.clone().requires_grad_()
    deployed(x)[0].sum().backward()
    assert x.grad.abs().sum() > 0
    with use_backend('reference'):
        deployed(IMAGE)
    with torch.autocast('cpu'):
        deployed(IMAGE)
    torch.jit.trace(deployed, IMAGE, check_trace=False)
    torch.compile(deployed, fullgraph=True, backend='eager')(IMAGE)
    assert not overwritten
