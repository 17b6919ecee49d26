"""Networks that compute in channels_last: equal results, and operators that read memory get it contiguous."""

import copy
import pickle

import pytest
import torch
from torch import nn

from icconv_mm.backbones import ICResNet, PyConvResNet, ResNet
from icconv_mm.layers import set_memory_format

CL = torch.channels_last


def small(memory_format, kind=ICResNet, **settings):
    torch.manual_seed(0)
    pattern = {'pattern': 'geometric_d4'} if kind is ICResNet else {}
    return kind(18, **{'base_channels': 16, **settings}, memory_format=memory_format, **pattern)


def smooth(net):
    """With SiLU for ReLU: rounding turns single ReLUs on or off, which moves gradients by percents."""
    for module in list(net.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.ReLU):
                setattr(module, name, nn.SiLU())
    return net


def is_channels_last(x):
    return x.is_contiguous(memory_format=CL) and not x.is_contiguous()


@pytest.mark.parametrize('kind', [ResNet, ICResNet, PyConvResNet])
def test_maps_are_channels_last_and_equal(kind):
    x = torch.randn(2, 3, 64, 96)
    auto, preserved = (smooth(small(memory_format, kind)).eval() for memory_format in ('auto', 'preserve'))
    levels, expected = auto(x), preserved(x=x)
    assert all(map(is_channels_last, levels)) and all(level.is_contiguous() for level in expected)
    torch.testing.assert_close(levels, expected, rtol=1e-4, atol=1e-4)
    for outputs in (levels, expected):
        sum(level.square().mean() for level in outputs).backward()
    for (name, one), other in zip(auto.named_parameters(), preserved.parameters()):
        assert one.grad.is_contiguous() == one.is_contiguous(), name
        assert (one.grad - other.grad).norm() <= 1e-3 * other.grad.norm().clamp(min=1e-3), name


@pytest.mark.parametrize('kind', [ResNet, PyConvResNet])
def test_a_switch_of_mode_leaves_parameters_alone(kind):
    """Identity, memory and layout: others hold on to them, such as optimizers, state dicts and averaged copies."""
    net = small('auto', kind)
    held, parameters = net.state_dict(), dict(net.named_parameters())
    before = {name: (value.data_ptr(), value.stride()) for name, value in held.items()}
    x = torch.randn(1, 3, 64, 64)
    for switch in (net.eval, net.train):
        switch()
        with torch.inference_mode():
            switch()
            net(x)
        assert {name: (value.data_ptr(), value.stride()) for name, value in net.state_dict().items()} == before
        assert all(parameter is parameters[name] for name, parameter in net.named_parameters())
    assert not any(parameter.is_inference() for parameter in net.parameters())
    held['layer4.1.conv1.weight'].zero_()
    assert net.layer4[1].conv1.weight.abs().sum() == 0
    vector = torch.nn.utils.parameters_to_vector(net.parameters())
    torch.nn.utils.vector_to_parameters(vector, net.parameters())
    sum(level.square().mean() for level in net(x)).backward()


@pytest.mark.parametrize('kind', [ResNet, ICResNet])
def test_vmap_takes_maps_as_they_come(kind):
    net, x = small('auto', kind).eval(), torch.randn(3, 1, 3, 64, 64)
    with torch.no_grad():
        levels = torch.func.vmap(net)(x)
        for level, expected in zip(levels, zip(*map(net, x))):
            torch.testing.assert_close(level, torch.stack(expected), rtol=1e-4, atol=1e-4)


def test_auto_leaves_alone_what_gains_nothing():
    x = torch.randn(1, 3, 32, 32, dtype=torch.float64)
    assert all(level.is_contiguous() for level in small('auto').double().eval()(x))
    on_meta = small('auto').to('meta').eval()(torch.empty(1, 3, 32, 32, device='meta'))
    assert all(level.is_contiguous() for level in on_meta)
    identity = nn.Identity()
    set_memory_format(identity, 'channels_last')
    assert is_channels_last(identity(torch.empty(1, 3, 64, 64, device='meta')))


@pytest.mark.parametrize('memory_format', ['auto', 'channels_last'])
def test_narrow_networks_stay_as_they_come(memory_format):
    """torch's gradients of strided 1x1 convolutions of a few channels_last channels overwrite memory on CPUs."""
    x = torch.randn(1, 3, 64, 64)
    assert all(level.is_contiguous() for level in small(memory_format, base_channels=8)(x))
    assert all(map(is_channels_last, small(memory_format, PyConvResNet, base_channels=8)(x)))  # these pool instead


def test_a_misspelt_format_names_those_there_are():
    with pytest.raises(ValueError, match=r"memory_format must be one of \('auto', .*got 'channel_last'"):
        small('channel_last')


def test_copies_and_pickles():
    net, x = small('auto').eval(), torch.randn(1, 3, 64, 64)
    expected = net(x)
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        torch.testing.assert_close(other(x), expected)
        assert all(map(is_channels_last, other(x)))


@pytest.mark.parametrize('after', [False, True])
def test_operators_of_mmcv_get_contiguous_maps(after):
    """RoIAlign and modulated deformable convolution of mmcv 2.1 read NCHW memory, whatever the strides say."""
    ops = pytest.importorskip('mmcv.ops')

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.pool = nn.ModuleList([ops.RoIAlign(7, 0.5, 2)])
            self.deformed = ops.ModulatedDeformConv2dPack(8, 8, 3, padding=1)
            nn.init.normal_(self.deformed.conv_offset.weight, std=0.1)

        def forward(self, x):
            return self.pool[0](x, x.new_tensor([[0, 1.0, 2, 12, 15]])), self.deformed(x)

    if after:  # of a network that computes in channels_last
        set_memory_format(nn.Identity(), 'auto')
        model = Model()
    else:  # as a part of it
        model = Model()
        set_memory_format(model, 'channels_last')
    x = torch.randn(1, 8, 20, 24)
    expected = model(x.contiguous())
    copied = copy.deepcopy(model)
    for each in (model, copied):
        torch.testing.assert_close(each(x.contiguous(memory_format=CL)), expected)


@pytest.mark.parametrize('kind', ['DCN', 'DCNv2'])
def test_a_stage_that_deforms(kind):
    """Offsets are read without a look at their format, so the convolution that makes them keeps its filters, too."""
    pytest.importorskip('mmcv.ops')
    dcn = dict(dcn=dict(type=kind, deform_groups=1), stage_with_dcn=(False, True, True, True))
    converted, preserved = (small(each, ResNet, **dcn).double() for each in ('channels_last', 'preserve'))
    for name, parameter in converted.named_parameters():
        if 'conv_offset' in name:  # zeros at first
            nn.init.normal_(parameter, std=0.1)
    preserved.load_state_dict(converted.state_dict())
    # float64: places between pixels make much of rounding
    x = torch.randn(1, 3, 160, 160).double()  # mmcv's DCN takes no map that is smaller than its kernel
    torch.testing.assert_close(converted.eval()(x), preserved.eval()(x), rtol=1e-8, atol=1e-8)
