"""The fast path of common calls against the operators, and when which is taken."""

import logging
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from inception_calls import random_call as inception_call
from pyconv_calls import random_call as pyconv_call
from torch.autograd import forward_ad
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from icconv_mm.ops import (
    dispatch,
    inception_conv,
    inception_conv2d,
    inception_conv2d_relu,
    pyconv,
    pyconv2d,
    pyconv2d_relu,
    use_backend,
)
from icconv_mm.ops.compiled_library import library_module
from icconv_mm.patterns import DilationPattern

pytestmark = pytest.mark.skipif(library_module() is None, reason='the compiled library has no fast path')

X, WEIGHT = torch.randn(2, 32, 9, 8), torch.randn(24, 32, 3, 3)
PATTERN = DilationPattern(((12, 1, 1), (8, 2, 1), (4, 3, 2)))
LEVELS, GROUPS = [torch.randn(16, 32, 3, 3), torch.randn(16, 8, 5, 5)], (1, 4)
KINDS = {
    'inception_conv2d': ((PATTERN.flat, 1, 1), [WEIGHT], lambda x, w, b: inception_conv2d(x, w[0], b, PATTERN)),
    'pyconv2d': ((GROUPS, 1, 1), LEVELS, lambda x, w, b: pyconv2d(x, w, b, GROUPS)),
    'inception_conv2d_relu': (
        (PATTERN.flat, 1, 1),
        [WEIGHT],
        lambda x, w, b: inception_conv2d_relu(x, w[0], b, PATTERN),
    ),
    'pyconv2d_relu': ((GROUPS, 1, 1), LEVELS, lambda x, w, b: pyconv2d_relu(x, w, b, GROUPS)),
}
kinds = pytest.mark.parametrize('kind', KINDS)
differentiable = pytest.mark.parametrize('kind', list(KINDS)[:2])


@pytest.fixture(autouse=True)
def unwatched():
    """torch 2.1 leaves a dispatch key behind when it has exported, as another test may have."""
    if torch.__version__.startswith('2.1.'):
        torch._C._dispatch_tls_set_dispatch_key_included(torch._C.DispatchKey.Dense, False)


@pytest.fixture
def long_way(monkeypatch):
    """Switches the fast path off."""

    def switch():
        monkeypatch.setattr(dispatch, 'is_compiling', lambda: True)

    return switch


def taken(kind: str, x=X, weights=None, bias=None) -> bool:
    call, defaults, _ = KINDS[kind]
    convolution = (inception_conv if kind.startswith('inception') else pyconv)._convolution
    run = dispatch.prepared(convolution.maker, call, kind.endswith('relu'), convolution.supported)
    return run is not None and run(x, weights or defaults, bias, dispatch.requested()) is not None


def leaves(kind: str, bias: bool = True) -> list[torch.Tensor]:
    """Input, weights and bias that require gradients."""
    weights = KINDS[kind][1]
    tensors = [X, *weights] + ([torch.randn(sum(len(weight) for weight in weights))] if bias else [])
    return [tensor.clone().requires_grad_() for tensor in tensors]


def call(kind: str, tensors: list[torch.Tensor]) -> torch.Tensor:
    count = len(KINDS[kind][1])
    return KINDS[kind][2](tensors[0], tensors[1 : 1 + count], tensors[1 + count] if len(tensors) > 1 + count else None)


def both_ways(long_way, run) -> tuple:
    short = run()
    long_way()
    return short, run()


def assert_equal(one, other):
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-4)


# --- the same results


@pytest.mark.parametrize('make', [inception_call, pyconv_call])
def test_random_calls(make, long_way):
    """Outputs and gradients, of float32 and bfloat16, in both formats, with and without a bias, stride and groups."""
    run = inception_conv2d if make is inception_call else pyconv2d

    def results():
        outputs = []
        for seed in range(80):
            one = make(seed).to(torch.float32 if seed % 2 else torch.bfloat16)
            fmt = torch.channels_last if seed % 3 else torch.contiguous_format
            several = isinstance(one[1], list)
            x = one.x.contiguous(memory_format=fmt).detach().requires_grad_()
            weights = [w.detach().requires_grad_() for w in (one[1] if several else [one[1]])]
            bias = None if one.bias is None else one.bias.detach().requires_grad_()
            out = run(x, weights if several else weights[0], bias, *one[3:])
            wanted = [x, *weights] + ([] if bias is None else [bias])
            tensors = [out, *torch.autograd.grad(out, wanted, torch.ones_like(out))]
            outputs.append([(tensor.detach(), tensor.stride()) for tensor in tensors])
        return outputs

    for one, other in zip(*both_ways(long_way, results), strict=True):
        for (got, strides), (expected, expected_strides) in zip(one, other, strict=True):
            assert torch.equal(got, expected) and (strides == expected_strides or got.numel() == 0)


@kinds
def test_without_a_gradient(kind, long_way):
    def run():
        with torch.no_grad():
            first = call(kind, leaves(kind))
        with torch.inference_mode():
            return first, call(kind, [X, *KINDS[kind][1]])

    torch.manual_seed(1)
    short = run()
    long_way()
    torch.manual_seed(1)
    for one, other in zip(short, run()):
        assert torch.equal(one, other) and not one.requires_grad


@differentiable
@pytest.mark.parametrize('frozen', ['x', 'weights', 'bias', 'no bias'])
def test_what_needs_no_gradient_gets_none(kind, frozen):
    tensors = leaves(kind, frozen != 'no bias')
    chosen = {'x': tensors[:1], 'weights': tensors[1:-1], 'bias': tensors[-1:], 'no bias': []}[frozen]
    for tensor in chosen:
        tensor.requires_grad_(False)
    call(kind, tensors).sum().backward()
    assert [tensor.grad is None for tensor in tensors] == [not tensor.requires_grad for tensor in tensors]


@differentiable
def test_gradients_of_gradients(kind, long_way):
    tensors = leaves(kind)

    def run():
        out = call(kind, tensors)
        grads = torch.autograd.grad(out.square().sum(), tensors, create_graph=True)
        return [*grads, *torch.autograd.grad(sum(grad.cos().sum() for grad in grads), tensors)]

    for one, other in zip(*both_ways(long_way, run)):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-3)


def test_several_gradients_at_once(long_way):
    kind = 'inception_conv2d'  # lists of tensors have no batches
    tensors = leaves(kind)

    def run():
        out = call(kind, tensors)
        grads = torch.stack([torch.ones_like(out), 2 * torch.ones_like(out)])
        return torch.autograd.grad(out, tensors[:1], grads, is_grads_batched=True)

    assert_equal(*both_ways(long_way, run))


@differentiable
def test_under_autocast(kind, long_way):
    tensors = leaves(kind)

    def run():
        with torch.autocast('cpu', dtype=torch.bfloat16):
            assert taken(kind, X, KINDS[kind][1]) == (dispatch.is_compiling() is False)
            out = call(kind, tensors)
        return [out, *torch.autograd.grad(out, tensors, torch.ones_like(out))]

    short, long = both_ways(long_way, run)
    assert short[0].dtype == torch.bfloat16 and {tensor.dtype for tensor in short[1:]} == {torch.float32}
    for one, other in zip(short, long):
        assert torch.equal(one, other)


@differentiable
def test_recomputed_and_kept_elsewhere(kind):
    """Checkpoints and hooks on saved tensors see what is saved."""
    tensors, seen = leaves(kind), []
    expected = torch.autograd.grad(call(kind, tensors).cos().sum(), tensors)
    out = checkpoint(lambda *inputs: call(kind, list(inputs)), *tensors, use_reentrant=False)
    assert_equal(torch.autograd.grad(out.cos().sum(), tensors), expected)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: seen.append(t.shape) or t, lambda t: t):
        out = call(kind, tensors)
    assert X.shape in seen
    assert_equal(torch.autograd.grad(out.cos().sum(), tensors), expected)


@differentiable
def test_an_input_that_was_changed_is_noticed(kind):
    tensors = leaves(kind)
    x = tensors[0] * 1
    out = call(kind, [x, *tensors[1:]])
    x.add_(1)
    with pytest.raises(RuntimeError, match='modified by an inplace operation'):
        out.sum().backward()


# --- when it is taken


@kinds
def test_ordinary_calls_take_it(kind):
    frozen = kind.endswith('_relu')
    weights = KINDS[kind][1] if frozen else [torch.nn.Parameter(weight) for weight in KINDS[kind][1]]
    assert taken(kind, X, weights)
    assert taken(kind, X.to(memory_format=torch.channels_last), weights)
    with use_backend('cpu'):
        assert taken(kind, X, weights)


class Subclass(torch.Tensor):
    pass


@kinds
def test_what_does_not_take_it(kind, caplog):
    weights = KINDS[kind][1]
    assert not taken(kind, X.double(), [weight.double() for weight in weights])
    assert not taken(kind, X.to('meta'), [weight.to('meta') for weight in weights])
    assert not taken(kind, X.as_subclass(Subclass)) and not taken(kind, 'x') and not taken(kind, X[0])
    assert not taken(kind, X[:, :31]) and not taken(kind, X, bias=torch.ones(3))
    assert not taken(kind, X.bfloat16())
    if kind.startswith('pyconv'):
        assert not taken(kind, X, weights * 2)
    for context in (FlopCounterMode(display=False), torch.device('meta'), use_backend('reference')):
        with context:
            assert not taken(kind)
    assert taken(kind)
    with caplog.at_level(logging.DEBUG, 'icconv_mm'):
        assert not taken(kind)
    if kind.endswith('_relu'):
        assert not taken(kind, X.clone().requires_grad_())


def test_transforms_take_the_long_way():
    kind, seen = 'inception_conv2d', []

    def run(x):
        seen.append(taken(kind, x))
        return call(kind, [x, *KINDS[kind][1]])

    tangent = torch.randn_like(X)
    with forward_ad.dual_level():
        moved = forward_ad.unpack_dual(run(forward_ad.make_dual(X, tangent))).tangent
    assert_equal(moved, call(kind, [tangent, *KINDS[kind][1]]))
    with torch.no_grad():
        batched = torch.func.vmap(run)(torch.stack([X, 2 * X]))
    assert_equal(batched[1], call(kind, [2 * X, *KINDS[kind][1]]))
    torch.jit.trace(run, X, check_trace=False)
    assert seen and not any(seen)


def test_exchanged_kernels_are_used_at_once(choice):
    assert taken('inception_conv2d')
    choice.offer('inception_conv2d', lambda *_: torch.full((2, 24, 9, 8), 7.0))
    assert not taken('inception_conv2d') and (inception_conv2d(X, WEIGHT, None, PATTERN) == 7).all()


def test_gradients_alone_can_be_without_a_compiled_kernel(choice):
    """The forward pass without gradients takes the fast path all the same."""
    choice.offer('inception_conv2d_grad_weight', None, refusal=lambda *_: 'not this one')
    assert not taken('inception_conv2d', X.clone().requires_grad_())
    with torch.no_grad():
        assert taken('inception_conv2d', X.clone().requires_grad_())


def test_the_backend_of_the_forward_pass_serves_gradients_of_gradients(monkeypatch):
    """On whatever thread they run."""
    seen, run = [], dispatch.run

    def watched(name, *args):
        seen.append((name, dispatch.requested()))
        return run(name, *args)

    monkeypatch.setattr(dispatch, 'run', watched)
    x = X.clone().requires_grad_()
    with use_backend('cpu'):
        out = inception_conv2d(x, WEIGHT, None, PATTERN)
    (grad,) = torch.autograd.grad(out.square().sum(), x, create_graph=True)
    grad.sum().backward()
    assert seen and {requested for _, requested in seen} == {'cpu'}


def test_threads_at_once():
    """One layer in several threads, which ask for different backends, while its first calls are prepared."""
    pattern = DilationPattern(((10, 1, 1), (14, 2, 5)))
    expected = inception_conv2d(X, WEIGHT, None, [(10, 1, 1), (14, 2, 5)])
    gradient = inception_conv.grad_input(torch.ones_like(expected), WEIGHT, (9, 8), pattern.flat, 1, 1)

    def run(number):
        x = X.clone().requires_grad_(number % 2 == 1)
        with use_backend(('auto', 'reference', 'cpu')[number % 3]):
            out = inception_conv2d(x, WEIGHT, None, pattern)
            if x.requires_grad:
                out.sum().backward()
        return out.detach(), x.grad

    with ThreadPoolExecutor(4) as pool:
        for out, grad in pool.map(run, range(60)):
            assert_equal(out, expected)
            assert grad is None or torch.allclose(grad, gradient, rtol=1e-4, atol=1e-4)


def test_profilers_know_the_operator():
    with torch.profiler.profile() as profile:
        inception_conv2d(X, WEIGHT, None, PATTERN)
    assert 'icconv_mm::inception_conv2d_compiled' in {event.key for event in profile.key_averages()}
