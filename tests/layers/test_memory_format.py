"""Networks that compute in channels_last: equal results, and maps that leave in the format of the image."""

import copy
import ctypes
import pickle

import pytest
import torch
from torch import nn

from icconv_mm import deploy
from icconv_mm.backbones import ICResNet, PyConvResNet, ResNet
from icconv_mm.layers import set_memory_format
from icconv_mm.layers.memory_format import leaving
from icconv_mm.necks import FPT
from icconv_mm.ops.tensors import memory_format

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


def formats_inside(net):
    """A list that gets the format of each stage's output in the calls to come."""
    formats = []
    for stage in (net.layer1, net.layer2, net.layer3, net.layer4):
        stage.register_forward_hook(lambda module, args, x: formats.append(memory_format(x)))
    return formats


@pytest.mark.parametrize('kind', [ResNet, ICResNet, PyConvResNet])
@pytest.mark.parametrize('given', [torch.contiguous_format, CL], ids=str)
def test_maps_are_equal_and_leave_as_the_image_came(kind, given):
    x = torch.randn(2, 3, 64, 96).contiguous(memory_format=given)
    auto, preserved = (smooth(small(memory_format, kind)).eval() for memory_format in ('auto', 'preserve'))
    inside = formats_inside(auto)
    levels, expected = auto(x), preserved(x=x)
    assert inside == [CL] * 4
    assert all(level.is_contiguous(memory_format=given) for level in (*levels, *expected))
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
    other = nn.Sequential(nn.Identity())
    set_memory_format(other, 'channels_last')
    inside = []
    other[0].register_forward_hook(lambda module, args, output: inside.append(is_channels_last(output)))
    assert other(torch.empty(1, 3, 64, 64, device='meta')).is_contiguous() and inside == [True]


@pytest.mark.parametrize('memory_format', ['auto', 'channels_last'])
def test_narrow_networks_stay_as_they_come(memory_format):
    """torch's gradients of strided 1x1 convolutions of a few channels_last channels overwrite memory on CPUs."""
    for kind, expected in ((ICResNet, torch.contiguous_format), (PyConvResNet, CL)):  # the latter pool instead
        inside = formats_inside(net := small(memory_format, kind, base_channels=8))
        net(torch.randn(1, 3, 64, 64))
        assert inside == [expected] * 4


def test_a_misspelt_format_names_those_there_are():
    with pytest.raises(ValueError, match=r"memory_format must be one of \('auto', .*got 'channel_last'"):
        small('channel_last')


def test_copies_and_pickles():
    net, x = small('auto').eval(), torch.randn(1, 3, 64, 64)
    expected = net(x)
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        inside = formats_inside(other)
        torch.testing.assert_close(other(x), expected)
        assert inside == [CL] * 4 and all(level.is_contiguous() for level in other(x))


def test_layers_of_mmcv_inside_get_contiguous_maps():
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

    model, x = Model(), torch.randn(1, 8, 20, 24)
    expected = model(x)
    set_memory_format(model, 'channels_last')
    copied = copy.deepcopy(model)
    for network in (model, copied):
        torch.testing.assert_close(network(x), expected)
        torch.testing.assert_close(network(x.contiguous(memory_format=CL)), expected)


@pytest.mark.parametrize('kind', ['DCN', 'DCNv2'])
def test_a_stage_that_deforms(kind):
    """Offsets are read without a look at their format, so the convolution that makes them keeps its filters, too."""
    pytest.importorskip('mmcv.ops')
    dcn = dict(dcn=dict(type=kind, deform_groups=1), stage_with_dcn=(False, True, True, True))
    converted, preserved = (small(layout, ResNet, **dcn).double() for layout in ('channels_last', 'preserve'))
    for name, parameter in converted.named_parameters():
        if 'conv_offset' in name:  # zeros at first
            nn.init.normal_(parameter, std=0.1)
    preserved.load_state_dict(converted.state_dict())
    # float64: places between pixels make much of rounding
    x = torch.randn(1, 3, 160, 160).double()  # mmcv's DCN takes no map that is smaller than its kernel
    torch.testing.assert_close(converted.eval()(x), preserved.eval()(x), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize('shape', [(2, 64, 40, 44), (1, 7, 5, 6), (3, 1, 5, 6), (1, 3, 1, 1), (0, 4, 5, 5)])
def test_a_result_outside_is_a_contiguous_copy(shape, dtype):
    x, grad = (torch.randn(shape, dtype=dtype).contiguous(memory_format=CL) for _ in range(2))
    x.requires_grad_()
    for given in (torch.randn(1, 3, 8, 8), torch.randn(1, 3, 8, 16)[..., ::2]):
        y = leaving(x, given)
        assert y.is_contiguous() and torch.equal(y, x)
        for incoming in (grad, grad.contiguous()):
            (gradient,) = torch.autograd.grad(y, x, incoming, retain_graph=True)
            assert torch.equal(gradient, grad)
    assert leaving(x, torch.randn(1, 3, 8, 8).contiguous(memory_format=CL)) is x


def test_second_gradients_of_results_outside():
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64, requires_grad=True)

    def call(x):
        return leaving(x.contiguous(memory_format=CL), torch.empty(1, 3, 8, 8)).square()

    assert torch.autograd.gradcheck(call, x) and torch.autograd.gradgradcheck(call, x)


def test_a_plugin_that_calls_a_function_of_mmcv():
    ops = pytest.importorskip('mmcv.ops')

    class Deformed(nn.Module):
        """Has parts, and no parameters of its own."""

        _abbr_ = 'deformed'

        def __init__(self, in_channels):
            super().__init__()
            self.offset = nn.Conv2d(in_channels, 18, 3, padding=1)
            self.conv = nn.Conv2d(in_channels, in_channels, 3)

        def forward(self, x):
            return ops.deform_conv2d(x, self.offset(x), self.conv.weight, 1, 1)

    plugin = dict(cfg=dict(type=Deformed), position='after_conv2')
    net = small('auto', plugins=[plugin], num_stages=1, strides=(1,), dilations=(1,)).eval()
    preserved, x = copy.deepcopy(net), torch.randn(1, 3, 64, 64)
    preserved.memory_format = 'preserve'
    with torch.no_grad():
        torch.testing.assert_close(net(x), preserved(x), rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(deploy(net)(x), preserved(x), rtol=1e-3, atol=1e-4)


# --- what others do with the maps, whenever and however they were made

ROIS, ROTATED = torch.tensor([[0.0, 3, 5, 50, 60]]), torch.tensor([[0.0, 30, 40, 40, 30, 0.5]])
OFFSET, MASK, WEIGHT = torch.randn(1, 18, 8, 8), torch.rand(1, 9, 8, 8), torch.randn(4, 32, 3, 3)
BOXES, POINTS = torch.rand(64, 5) * 50, torch.rand(1, 5, 2)


def reads_memory(x):
    """A compiled operator of somebody: the numbers as they lie in memory."""
    numbers = (ctypes.c_float * x.numel()).from_address(x.data_ptr())
    return torch.tensor(numbers[:]).view(x.shape)


FOREIGN = {
    'roi_align': lambda ops, x: ops.roi_align(x, ROIS, 7, 1 / 8, 2),
    'roi_align_rotated': lambda ops, x: ops.roi_align_rotated(x, ROTATED, (7, 7), 1 / 8, 2),
    'deform_conv2d': lambda ops, x: ops.deform_conv2d(x, OFFSET, WEIGHT, 1, 1),
    'modulated_deform_conv2d': lambda ops, x: ops.modulated_deform_conv2d(x, OFFSET, MASK, WEIGHT, None, 1, 1),
    'rotated_feature_align': lambda ops, x: ops.rotated_feature_align(x, BOXES, 1 / 8),
    'point_sample': lambda ops, x: ops.point_sample(x, POINTS),
    'a layer of no module': lambda ops, x: ops.RoIAlign(7, 1 / 8, 2)(x, ROIS),
    'view': lambda ops, x: x.view(1, -1),
    'memory': lambda ops, x: reads_memory(x),
}


@pytest.mark.parametrize('name', FOREIGN)
@torch.no_grad()
def test_operators_of_others_read_the_maps(name):
    ops = pytest.importorskip('mmcv.ops')
    net = small('auto', out_indices=(1,)).eval()
    preserved, x = copy.deepcopy(net), torch.randn(1, 3, 64, 64)
    preserved.memory_format = 'preserve'
    expected = FOREIGN[name](ops, preserved(x)[0])
    for network in (net, pickle.loads(pickle.dumps(net)), deploy(net)):
        torch.testing.assert_close(FOREIGN[name](ops, network(x)[0]), expected, rtol=1e-3, atol=1e-4)


def test_gradients_of_operators_of_others():
    ops = pytest.importorskip('mmcv.ops')
    gradients = []
    for setting in ('auto', 'preserve'):
        net = smooth(small(setting, out_indices=(1,), base_channels=32)).eval()
        torch.manual_seed(0)
        loss = ops.roi_align(net(torch.randn(1, 3, 64, 64))[0], ROIS, 7, 1 / 8, 2).square().sum()
        gradients.append(torch.autograd.grad(loss, net.conv1.weight)[0])
    assert (gradients[0] - gradients[1]).norm() <= 1e-4 * gradients[1].norm()


def test_a_layer_of_others_that_is_put_in_later_gets_contiguous_maps():
    """As a deformable convolution that replaces one of a built backbone."""

    class Reading(nn.Conv2d):
        seen = []

        def forward(self, x):
            self.seen.append(x.is_contiguous())
            return super().forward(x)

    network = ICResNet(18, 'geometric_d4').eval()
    network(torch.randn(1, 3, 64, 64))
    layer = network.layer2[0]
    Reading.__module__ = 'another.package'
    layer.conv2 = Reading(128, 128, 3, padding=1)
    for _ in range(2):
        network(torch.randn(1, 3, 64, 64))
    assert Reading.seen == [True, True]


@pytest.mark.parametrize('make', [lambda net: net, deploy])
def test_group_norms_of_maps_whose_mean_is_far_from_zero(make):
    """As a trained network has them: torch's kernel of channels_last maps is 1e-2 off there by itself."""
    torch.manual_seed(0)
    norm = nn.GroupNorm(4, 16)
    maps = (30 + torch.randn(2, 16, 24, 24)).to(memory_format=torch.channels_last)
    expected = copy.deepcopy(norm).double()(maps.double())
    assert (norm(maps) - expected).abs().max() > 1e-4  # else nothing needs to be done any more
    net = nn.Sequential(nn.Conv2d(16, 16, 1), norm)
    net[0].weight.data = torch.eye(16)[:, :, None, None]
    nn.init.zeros_(net[0].bias)
    set_memory_format(net, 'channels_last')
    for _ in range(2):  # hooks are added once
        x = maps.clone().requires_grad_()
        out = make(net)(x)
        torch.testing.assert_close(out.double(), expected, rtol=1e-5, atol=2e-5)
    if out.requires_grad:
        weight = torch.randn_like(out)
        (grad,) = torch.autograd.grad(out, x, weight)
        given = maps.double().requires_grad_()
        (want,) = torch.autograd.grad(copy.deepcopy(net).double()(given.contiguous()), given, weight.double())
        torch.testing.assert_close(grad.double(), want, rtol=1e-4, atol=1e-5)


def test_a_deployed_pyramid_transformer_of_maps_whose_mean_is_far_from_zero():
    torch.manual_seed(0)
    neck = FPT([64] * 3, 64, drop_prob=0.0).eval()
    levels = [20 * torch.rand(1, 64, 1, 1) + torch.randn(1, 64, side, side) for side in (32, 16, 8)]
    with torch.no_grad():
        expected, outputs = copy.deepcopy(neck).double()([x.double() for x in levels]), deploy(neck)(levels)
    for out, want in zip(outputs, expected):
        assert (out - want).abs().max() < 1e-4 * want.abs().max()
