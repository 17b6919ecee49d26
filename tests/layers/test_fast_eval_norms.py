"""Norm, sum and ReLU of residual networks: in place where nothing is recorded, else step by step, with one result."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from icconv_mm.backbones import ICResNet, PyConvResNet, ResNet
from icconv_mm.layers import fast_eval
from icconv_mm.ops import backends, use_backend

pytestmark = pytest.mark.skipif(not backends()['cpu'], reason='not compiled')


@pytest.fixture
def calls(monkeypatch):
    """The numbers of maps that were normalised in place."""
    counted = []
    run = fast_eval._batch_norm_relu_
    monkeypatch.setattr(fast_eval, '_batch_norm_relu_', lambda *args: counted.append(1) or run(*args))
    return counted


def network(kind=ResNet, depth=50, **settings):
    torch.manual_seed(0)
    net = kind(depth, base_channels=16, stem_channels=16, **settings)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 1.5)
    return net.eval()


@pytest.mark.parametrize('memory_format', ['auto', 'preserve'])
@pytest.mark.parametrize(
    ('kind', 'depth', 'settings'),
    [
        (ResNet, 50, {}),
        (ResNet, 18, {'drop_path_rate': 0.1}),
        (ICResNet, 50, {'pattern': 'geometric_d4', 'avg_down': True, 'deep_stem': True}),
        (PyConvResNet, 18, {}),
        (ResNet, 50, {'plugins': [dict(cfg=dict(type='ContextBlock', ratio=1 / 4), position='after_conv3')]}),
    ],
    ids=str,
)
def test_the_result_is_that_of_the_steps(calls, kind, depth, settings, memory_format):
    net, x = network(kind, depth, memory_format=memory_format, **settings), torch.randn(2, 3, 64, 96)
    before = x.clone()
    with torch.no_grad():
        got = net(x)
    assert calls and torch.equal(x, before)
    norms = sum(isinstance(module, nn.BatchNorm2d) for module in net.modules())
    in_stem = 3 if settings.get('deep_stem') else 0  # a sequence of torch's own steps
    assert len(calls) == norms - in_stem
    calls.clear()
    with use_backend('reference'), torch.no_grad():
        expected = net(x)
    assert not calls
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(net(x), expected, rtol=1e-4, atol=1e-4)  # records
    assert not calls


@pytest.mark.parametrize('mode', [torch.no_grad, torch.inference_mode])
def test_frozen_stages_of_a_training_run_in_place(calls, mode):
    net = network(frozen_stages=1, norm_eval=True).train()
    net(torch.randn(1, 3, 64, 64))[-1].sum().backward()
    assert len(calls) == 1 + 3 * 3 + 1  # stem and first stage
    calls.clear()
    with mode():
        net(torch.randn(1, 3, 64, 64))
    assert len(calls) == 53


def test_nothing_is_overwritten_that_somebody_looks_at(calls):
    net, x = network(), torch.randn(1, 3, 64, 64)
    seen = {}

    def look(module, args, out):
        seen[module] = out, out.clone()

    watched = [net.layer1[0].conv3, net.layer1[1].bn1, net.layer1[2].relu]
    for module in watched:
        module.register_forward_hook(look)
    with torch.no_grad():
        net(x)
    assert len(calls) == 53 - 3 and list(seen) == watched
    assert torch.equal(*seen[watched[0]])  # which a norm in place would have changed


class Gives(nn.Module):
    """Its input, or a view of it, as one that was put in the place of a convolution."""

    def __init__(self, view=False):
        super().__init__()
        self.view = view

    def forward(self, x):
        return x[:] if self.view else x


@pytest.mark.parametrize('kind', [nn.Identity, Gives, lambda: Gives(view=True)], ids=['identity', 'module', 'view'])
@pytest.mark.parametrize(('where', 'folded'), [('conv1', False), ('conv2', False), ('conv2', True)])
def test_a_map_that_a_convolution_did_not_make_stays(kind, where, folded, calls):
    net, x = network(depth=18), torch.randn(1, 3, 64, 64)
    block = net.layer1[1]
    setattr(block, where, kind())
    if folded:  # nor does the norm make one
        block.bn2 = nn.Identity()
    with torch.no_grad():
        got = net(x)
        assert len(calls) == 20 - 1
        given = torch.randn(1, 16, 16, 16).contiguous(memory_format=torch.channels_last)
        before = given.clone()
        block(given)
        assert torch.equal(given, before)
    for one, other in zip(got, net(x)):  # records
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_the_image_stays_where_the_stem_was_replaced(calls):
    net, x = network(), torch.randn(1, 16, 64, 64).contiguous(memory_format=torch.channels_last)
    before, net.conv1 = x.clone(), nn.Identity()
    with torch.no_grad():
        net(x)
    assert torch.equal(x, before)


def test_a_replaced_forward_is_called(calls):
    """As wrappers of modules do it, without a hook."""
    net, called = network(), []
    norm = net.layer1[0].bn1
    forward = norm.forward
    norm.forward = lambda x: called.append(1) or forward(x)
    with torch.no_grad():
        net(torch.randn(1, 3, 64, 64))
    assert len(calls) == 53 - 1 and called


def test_other_norms_activations_and_observers_get_their_steps(calls):
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        network(norm_cfg={'type': 'GN', 'num_groups': 4})(x)
        network().train()(x)
        assert not calls
        swapped = network()
        swapped.layer1[0].relu = nn.SiLU()
        swapped(x)
        assert len(calls) == 53 - 1
        calls.clear()
        with FlopCounterMode(display=False):
            network()(x)
        torch.func.vmap(network())(x[None])
        torch.jit.trace(network(), x, check_trace=False)
        called = set()
        hook = nn.modules.module.register_module_forward_hook(lambda module, *_: called.add(type(module)))
        network()(x)
        hook.remove()
        assert not calls and called >= {nn.Conv2d, nn.BatchNorm2d, nn.ReLU}


def test_tangents_pass():
    net, x = network(num_stages=1, strides=[1], dilations=[1]).double(), torch.randn(1, 3, 16, 16, dtype=torch.float64)
    tangent = torch.randn_like(x)
    with torch.no_grad():
        (_, got) = torch.func.jvp(lambda x: net(x)[0], (x,), (tangent,))
    step = 1e-6
    expected = (net(x + step * tangent)[0] - net(x - step * tangent)[0]) / (2 * step)
    torch.testing.assert_close(got, expected.detach(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16], ids=str)
def test_a_model_of_lower_precision_is_normalised_in_place(dtype, calls):
    if dtype == torch.float16 and tuple(map(int, torch.__version__.split('.')[:2])) < (2, 2):
        pytest.skip('this torch has no convolution of float16 for the CPU')
    net, x = network().to(dtype), torch.randn(1, 3, 64, 96, dtype=dtype)
    with torch.no_grad():
        outputs, count = net(x), len(calls)
        expected = net.float()(x.float())
    assert count == 53
    for one, other in zip(outputs, expected):
        assert one.dtype == dtype and (one.float() - other).abs().max() <= 0.06 * other.abs().max()
