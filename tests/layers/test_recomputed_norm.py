"""Maps of batch norm and ReLU that are computed again: equal gradients, less memory."""

import pytest
import torch
from torch import nn
from torch.autograd.graph import save_on_cpu
from torch.profiler import ProfilerActivity, profile
from torch.utils.checkpoint import checkpoint

from icconv_mm.backbones import ICResNet, PyConvResNet, ResNet
from icconv_mm.layers.recomputed_norm import recomputed_norm_relu

TINY = dict(base_channels=16, stem_channels=16, with_cp='norms')
NETWORKS = {
    'basic': lambda **options: ResNet(18, **TINY, **options),
    'bottleneck': lambda **options: ResNet(50, **TINY, **options),
    'inception': lambda **options: ICResNet(50, 'geometric_d4', **TINY, **options),
    'pyramidal': lambda **options: PyConvResNet(50, **TINY, **options),
}


def seeded(make, **options):
    torch.manual_seed(0)
    return make(**options).train()


def blocks_of(net):
    return [module for module in net.modules() if hasattr(module, 'with_cp') and module is not net]


def keep_all(net):
    for block in blocks_of(net):
        block.with_cp = False
    return net


def gradients(net, x):
    net.zero_grad()
    x = x.clone().requires_grad_()
    sum(level.square().mean() for level in net(x)).backward()
    return [x.grad, *(p.grad.clone() for p in net.parameters() if p.grad is not None)]


def saved_bytes(call):
    """What is allocated in a call and still there after it."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        result = call()
    assert result is not None
    return sum(event.nbytes() for event in profiler.profiler.kineto_results.events() if event.name() == '[memory]')


@pytest.mark.parametrize('options', [{}, {'norm_eval': True}, {'frozen_stages': 2}], ids=['', 'norm_eval', 'frozen'])
@pytest.mark.parametrize('make', NETWORKS.values(), ids=NETWORKS)
def test_gradients_and_statistics_are_the_same_bit_for_bit(make, options):
    x = torch.randn(2, 3, 64, 64)
    again, reference = seeded(make, **options), keep_all(seeded(make, **options))
    for ours, expected in zip(gradients(again, x), gradients(reference, x), strict=True):
        assert torch.equal(ours, expected)
    for (name, ours), expected in zip(again.state_dict().items(), reference.state_dict().values(), strict=True):
        assert torch.equal(ours, expected), name


def test_gradients_under_autocast_are_the_same():
    x = torch.randn(2, 3, 64, 64)
    with torch.autocast('cpu', torch.bfloat16):
        ours = gradients(seeded(NETWORKS['bottleneck']), x)
        expected = gradients(keep_all(seeded(NETWORKS['bottleneck'])), x)
    assert all(map(torch.equal, ours, expected))


@pytest.mark.parametrize('make', [ResNet, PyConvResNet])
@pytest.mark.parametrize('size', [32, 64, 160])
def test_a_plugin_may_make_another_map(make, size):
    """Where that lies in memory, a copy that autocast makes of what the plugin made may lie afterwards."""

    class Halved(nn.Module):
        def forward(self, x):
            return x.float() * -0.5

    x, grads = torch.randn(2, 3, size, size), []
    for change in (lambda net: net, keep_all):
        net = change(seeded(lambda: make(50, **TINY)))
        for block in blocks_of(net):
            for number in (1, 2):
                block.add_module(f'halved{number}', Halved())
                block.plugin_names[number].append(f'halved{number}')
        with torch.autocast('cpu', torch.bfloat16):
            grads.append(gradients(net, x))
    assert all(map(torch.equal, *grads))


def test_another_map_at_the_same_place_is_kept_as_it_is():
    """The map is held while the context is there, and let go with it."""
    x = torch.randn(2, 8, 16, 16, requires_grad=True)
    conv, norm, relu = nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8), nn.ReLU(inplace=True)
    output, recomputation = recomputed_norm_relu(conv(x), conv, norm, relu)
    place, values = output.data_ptr(), output.detach().clone()
    del output
    with recomputation:
        others = [torch.full_like(values, 3.0, requires_grad=True) for _ in range(50)]
        assert place not in {other.data_ptr() for other in others}
        products = [other * other for other in others]
    sum(products).sum().backward()
    assert all((other.grad == 6).all() for other in others)


def test_a_block_keeps_two_maps_less():
    """Those between its three convolutions. ReLU and the next convolution would keep the same one."""
    x = torch.randn(2, 64, 32, 32, requires_grad=True)
    again = seeded(NETWORKS['bottleneck']).layer1[1]
    reference = keep_all(seeded(NETWORKS['bottleneck'])).layer1[1]
    width = 2 * 16 * 32 * 32 * 4
    for block in (again, reference):
        block(x)  # what is allocated once
    saved = saved_bytes(lambda: reference(x)) - saved_bytes(lambda: again(x))
    assert 2 * width <= saved < 2.1 * width


def test_the_first_stage_of_pyconvresnet_does_so_by_itself():
    """It has no pooling before it."""
    net = PyConvResNet(50, base_channels=16)
    assert [block.with_cp for block in blocks_of(net)[:4]] == ['norms', 'norms', 'norms', False]
    assert {block.with_cp for block in blocks_of(PyConvResNet(50, base_channels=16, with_cp=True))} == {True}


def test_all_derivatives():
    net = ResNet(50, base_channels=1, stem_channels=2, num_stages=1, strides=[1], dilations=[1], with_cp='norms')
    net = net.double().train()
    x = torch.randn(1, 3, 8, 8, dtype=torch.float64, requires_grad=True)
    torch.manual_seed(0)
    assert torch.autograd.gradcheck(lambda x: net(x)[0], x)
    assert torch.autograd.gradgradcheck(lambda x: net(x)[0], x)


def test_a_hook_that_changes_a_map_counts():
    """What it makes cannot be computed again, so it is kept."""
    x, grads = torch.randn(2, 3, 64, 64), []
    for change in (lambda net: net, keep_all):
        net = change(seeded(NETWORKS['bottleneck']))
        net.layer1[0].bn1.register_forward_hook(lambda norm, args, output: output * 2)
        grads.append(gradients(net, x))
    assert all(map(torch.equal, *grads))


@pytest.mark.skipif(
    not hasattr(torch._C._autograd, '_top_saved_tensors_default_hooks'), reason='this torch does not tell'
)
def test_whoever_checkpoints_the_network_decides():
    x = torch.randn(2, 64, 32, 32, requires_grad=True)
    block = seeded(NETWORKS['bottleneck']).layer1[1]
    block(x)
    outside = saved_bytes(lambda: checkpoint(block, x, use_reentrant=False))
    assert outside <= saved_bytes(lambda: checkpoint(keep_all(nn.Sequential(block)), x, use_reentrant=False))
    with save_on_cpu():
        block(x).sum().backward()
    assert x.grad.isfinite().all()


def test_compiles_in_one_graph():
    net = seeded(NETWORKS['bottleneck'], num_stages=1, strides=[1], dilations=[1])
    x = torch.randn(2, 3, 32, 32)
    expected = net(x)[0]
    got = torch.compile(net, backend='aot_eager', fullgraph=True)(x)[0]
    torch.testing.assert_close(got, expected)
    got.sum().backward()


def test_an_unknown_kind_is_named():
    with pytest.raises(ValueError, match=r"with_cp must be one of \[False, True, 'norms'\], got 'norm'"):
        ResNet(18, with_cp='norm')
