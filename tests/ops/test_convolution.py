"""The operators of both convolutions against their definitions, and what they promise of their arguments."""

from collections.abc import Callable
from typing import NamedTuple

import inception_calls
import pyconv_calls
import pytest
import torch
from torch import randn
from torch.autograd import forward_ad
from torch.nn import functional as F

from icconv_mm.ops import inception_conv2d, inception_conv2d_relu, pyconv2d, use_backend
from icconv_mm.patterns import DilationPattern


def half_on_cpu() -> bool:
    try:
        F.conv2d(torch.ones(1, 1, 3, 3, dtype=torch.half), torch.ones(1, 1, 3, 3, dtype=torch.half))
    except RuntimeError:
        return False
    return True


PATTERN = [(2, 1, 2), (1, 3, 1), (3, 1, 1)]
DTYPES = {torch.float64: 1e-12, torch.float32: 2e-6, torch.bfloat16: 2e-2}
if half_on_cpu():
    DTYPES[torch.float16] = 3e-3


def inception_call(pattern=PATTERN):
    return inception_calls.Call(randn(2, 4, 6, 5), randn(6, 4, 3, 3), randn(6), pattern, 1, 1)


def pyconv_call(levels=3):
    """Of three levels one is rectangular, with groups."""
    weights = [randn(shape) for shape in ((2, 4, 3, 3), (4, 2, 5, 5), (4, 1, 3, 1))][:levels]
    bias = randn(sum(len(weight) for weight in weights))
    return pyconv_calls.Call(randn(2, 4, 6, 5), weights, bias, [1, 2, 4][:levels], 1, 1)


class Kind(NamedTuple):
    """A call has x, its weight or weights and its bias first, and two numbers last."""

    run: Callable
    small_call: Callable
    random_call: Callable
    reference: Callable


INCEPTION = Kind(inception_conv2d, inception_call, inception_calls.random_call, inception_calls.per_run)
PYCONV = Kind(pyconv2d, pyconv_call, pyconv_calls.random_call, pyconv_calls.by_level)
kinds = pytest.mark.parametrize('kind', [INCEPTION, PYCONV], ids=['inception', 'pyconv'])
backends = pytest.mark.parametrize('backend', ['reference', 'auto'])


def leaves(call):
    """The tensors of a call, each of which has a gradient from now on."""
    lists = [part if isinstance(part, list) else [part] for part in call[:3]]
    return [tensor.requires_grad_() for tensors in lists for tensor in tensors if tensor is not None]


def assert_near(got, expected, tolerance):
    """Largest deviation relative to the largest value."""
    assert got.shape == expected.shape
    if expected.numel():
        scale = expected.abs().max().clamp(min=1e-3)
        assert ((got.double() - expected.double()).abs().max() / scale).item() <= tolerance


def gradients(function, call):
    """The output, and the gradients of all tensors."""
    tensors = leaves(call)
    out = function(call)
    grad = randn(out.shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64).to(out.dtype)
    return [out.detach(), *torch.autograd.grad(out, tensors, grad)]


@kinds
@backends
@pytest.mark.parametrize('dtype', DTYPES, ids=str)
@pytest.mark.parametrize('seeds', [range(start, start + 25) for start in range(0, 75, 25)], ids=str)
def test_agrees_with_the_definition(kind, dtype, backend, seeds):
    """Output and gradients of random calls against plain convolutions of runs or levels, in float64."""
    for seed in seeds:
        call = kind.random_call(seed).to(dtype)
        expected = gradients(kind.reference, call.to(torch.float64))
        with use_backend(backend):
            got = gradients(lambda c: kind.run(*c), call)
        for one, other in zip(got, expected, strict=True):
            assert one.dtype == dtype
            assert_near(one, other, DTYPES[dtype])


@pytest.mark.parametrize(
    ('kind', 'weights', 'rest'),
    [
        (INCEPTION, [(4, 3, 3, 3)], [(4, 1, 1)]),
        (INCEPTION, [(4, 3, 3, 3)], [(3, 1, 1), (1, 2, 2)]),
        (PYCONV, [(4, 4, 3, 3)], [1]),
        (PYCONV, [(4, 4, 3, 3), (4, 2, 5, 5)], [1, 2]),
    ],
    ids=['one dilation', 'two dilations', 'one level', 'two levels'],
)
@backends
@pytest.mark.parametrize(('width', 'stride'), [(1, 2), (2, 2), (1, 3), (3, 3)])
@pytest.mark.parametrize('autocast', [False, True])
def test_bfloat16_with_one_column_of_outputs(kind, weights, rest, backend, width, stride, autocast):
    """torch 2.11 itself computes such outputs wrongly, and leaves some weight gradients uninitialised."""
    x, weights = randn(2, weights[0][1], 20, width), [randn(shape) for shape in weights]
    call = kind.small_call()._make((x, weights if kind is PYCONV else weights[0], None, rest, stride, 1))
    call = call.to(torch.bfloat16)
    expected = gradients(kind.reference, call.to(torch.float64))
    # memory that is handed out again
    junk = [torch.full((size,), 1e30) for size in range(1, 400, 3)]
    del junk
    with use_backend(backend), torch.autocast('cpu', torch.bfloat16, enabled=autocast):
        got = gradients(lambda c: kind.run(*c), call.to(torch.float32) if autocast else call)
    assert got[0].dtype == torch.bfloat16
    for one, other in zip(got, expected, strict=True):
        assert_near(one, other, DTYPES[torch.bfloat16])


@pytest.mark.parametrize('function', [inception_conv2d, inception_conv2d_relu])
def test_one_dilation_in_several_runs_is_an_ordinary_convolution(function, monkeypatch):
    """No operator is called for it, so that all of its tools serve."""
    x, weight = randn(1, 4, 9, 9), randn(6, 2, 3, 3)
    want = torch.nn.functional.conv2d(x, weight, None, 2, (2, 3), (2, 3), 2)
    monkeypatch.setattr('icconv_mm.ops.dispatch.run', None)
    with use_backend('reference'):  # which is not reached past the operator
        got = function(x, weight, None, [(4, 2, 3), (2, 2, 3)], stride=2, groups=2)
    assert torch.equal(got, want.relu() if function is inception_conv2d_relu else want)


@pytest.mark.parametrize(
    ('kind', 'weights', 'rest'),
    [
        (INCEPTION, [(6, 4, 3, 3)], (PATTERN, 1, 1)),
        (INCEPTION, [(6, 4, 3, 3)], (PATTERN, 2, 1)),
        (INCEPTION, [(6, 2, 3, 3)], (PATTERN, 1, 2)),
        (INCEPTION, [(6, 2, 3, 3)], (PATTERN, 2, 2)),
        (PYCONV, [(2, 4, 3, 3), (4, 1, 5, 1)], ([1, 4], 1, 1)),
        (PYCONV, [(2, 4, 3, 3), (4, 1, 5, 1)], ([1, 4], 2, 1)),
        (PYCONV, [(2, 4, 3, 3), (4, 1, 5, 1)], ([1, 4], 1, 2)),
    ],
)
def test_derivatives_of_second_order(kind, weights, rest):
    inputs = [randn(shape).double().requires_grad_() for shape in ((2, 4, 5, 4), (6,), *weights)]

    def function(x, bias, *weights):
        return kind.run(x, weights if kind is PYCONV else weights[0], bias, *rest)

    assert torch.autograd.gradcheck(function, inputs)
    assert torch.autograd.gradgradcheck(function, inputs)


@backends
@pytest.mark.parametrize(
    ('kind', 'argument'),
    [
        (INCEPTION, PATTERN),
        (INCEPTION, [(6, 1, 1)]),
        (INCEPTION, [(1, 1, 1), (1, 2, 2)] * 3),
        (PYCONV, 1),
        (PYCONV, 3),
    ],
    ids=['sorted', 'one dilation', 'mixed', 'one level', 'levels'],
)
def test_keeps_the_memory_format(backend, kind, argument):
    call = kind.small_call(argument)
    with use_backend(backend):
        assert kind.run(*call).is_contiguous()
        x = call.x.to(memory_format=torch.channels_last).requires_grad_()
        out = kind.run(*call._replace(x=x))
        assert out.is_contiguous(memory_format=torch.channels_last)
        out.backward(out.detach())
    assert x.grad.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize('dtype', [torch.bfloat16, pytest.param(torch.float16, marks=pytest.mark.skipif(
    torch.float16 not in DTYPES, reason='this torch has no float16 convolution on the CPU'))])  # fmt: skip
@kinds
def test_autocast(dtype, kind):
    call = kind.small_call()
    tensors = leaves(call)
    with torch.autocast('cpu', dtype=dtype):
        out = kind.run(*call)
        assert kind.run(*call.to(torch.float64)).dtype == torch.float64
    assert out.dtype == dtype
    assert_near(out, kind.reference(call), DTYPES[dtype])
    out.float().sum().backward()
    assert all(tensor.grad.dtype == torch.float32 for tensor in tensors)


@pytest.mark.parametrize(
    ('kind', 'changes', 'message'),
    [
        (INCEPTION, {'x': torch.ones(4, 5, 5)}, r'x must have the shape \[N, C_in, H, W\], got \[4, 5, 5\]'),
        (INCEPTION, {'x': torch.ones(1, 3, 5, 5)}, r'x \[1, 3, 5, 5\] and weight .* expected x with 4 channels'),
        (INCEPTION, {'weight': torch.ones(7, 4, 3, 3)}, 'the pattern sums to 6 channels, weight has 7 filters'),
        (INCEPTION, {'bias': torch.ones(5)}, r'bias must have the shape \[6\], got \[5\]'),
        (INCEPTION, {'stride': 0}, 'stride=0'),
        (INCEPTION, {'pattern': [(6, 0, 1)]}, r'a dilation must be at least 1, got \(0, 1\)'),
        (INCEPTION, {'pattern': [6]}, 'run 0: expected three integers'),
        (INCEPTION, {'pattern': 'dense'}, "a layer is a table of runs .*, got 'dense'; names"),
        (PYCONV, {'x': torch.ones(4, 5, 5)}, r'x must have the shape \[N, C_in, H, W\], got \[4, 5, 5\]'),
        (PYCONV, {'groups': [1, 2]}, 'one entry per level, got 3 and 2'),
        (PYCONV, {'x': torch.ones(1, 6, 5, 5)}, r'level 0: x \[1, 6, 5, 5\] and weight .* expected x with 4 channels'),
        (PYCONV, {'groups': [1, 4, 4]}, 'level 1: .* do not fit 4 groups: expected x with 8 channels'),
        (PYCONV, {'weights': [torch.ones(2, 4, 2, 3)], 'groups': [1]}, r'level 0: .* must be odd, got \(2, 3\)'),
        (PYCONV, {'bias': torch.ones(9)}, r'bias must have the shape \[10\], got \[9\]'),
        (PYCONV, {'groups': 1}, 'groups must be a list of numbers, one per level, got 1'),
        (
            PYCONV,
            {'weights': torch.ones(4, 4, 3, 3), 'groups': [1]},
            r'weights must be a list of tensors, one per level, got a tensor \[4, 4, 3, 3\]',
        ),
        (PYCONV, {'stride': 0}, 'stride=0, dilation=1'),
    ],
)
def test_errors_say_what_they_got(kind, changes, message):
    with pytest.raises(ValueError, match=message):
        kind.run(*kind.small_call()._replace(**changes))


def operators_of_inception():
    call = INCEPTION.random_call(3, min_batch=1)
    flat = list(DilationPattern(call.pattern).flat)
    call = call._replace(bias=randn(len(call.weight), dtype=torch.float64))
    grad = INCEPTION.reference(call).requires_grad_()
    x, weight, bias = leaves(call)
    rest = flat, call.stride, call.groups
    ops = torch.ops.icconv_mm
    return [
        (ops.inception_conv2d, (x, weight, bias, *rest)),
        (ops.inception_conv2d, (x, weight, None, *rest)),
        (ops.inception_conv2d_grad_input, (grad, weight, x.shape[2:], *rest)),
        (ops.inception_conv2d_grad_weight, (grad, x, *rest)),
    ]


def operators_of_pyconv():
    call = pyconv_call().to(torch.float64)
    grad = PYCONV.reference(call).requires_grad_()
    x, *weights, bias = leaves(call)
    shapes = [number for weight in weights for number in (weight.shape[0], *weight.shape[2:])]
    rest = call.groups, call.stride, call.dilation
    ops = torch.ops.icconv_mm
    return [
        (ops.pyconv2d, (x, weights, bias, *rest)),
        (ops.pyconv2d, (x, weights, None, *rest)),
        (ops.pyconv2d_grad_input, (grad, weights, x.shape[2:], *rest)),
        (ops.pyconv2d_grad_weight, (grad, x, shapes, *rest)),
    ]


@pytest.mark.parametrize('channels_last', [False, True])
@pytest.mark.parametrize('number', range(4))
@pytest.mark.parametrize('operators', [operators_of_inception, operators_of_pyconv])
def test_opcheck(operators, number, channels_last, opcheck):
    operator, args = operators()[number]
    if channels_last:
        args = tuple(
            a.detach().to(memory_format=torch.channels_last).requires_grad_()
            if isinstance(a, torch.Tensor) and a.ndim == 4
            else a
            for a in args
        )
    opcheck(operator, args)


@pytest.mark.parametrize('grad', [True, False])
@backends
def test_forward_mode_differentiation(grad, backend):
    """Tangents do not depend on whether gradients are recorded."""
    x, weight, bias = randn(2, 4, 6, 5), randn(6, 4, 3, 3), randn(6)
    moves = [torch.randn_like(tensor) for tensor in (x, weight, bias)]
    zero = torch.zeros(6)

    def call(x, weight, bias):
        return inception_conv2d(x, weight, bias, [(3, 1, 1), (3, 2, 3)], stride=2)

    expected = call(moves[0], weight, zero) + call(x, moves[1], zero) + moves[2][:, None, None]
    with torch.set_grad_enabled(grad), use_backend(backend), forward_ad.dual_level():
        out = call(*map(forward_ad.make_dual, (x, weight, bias), moves))
        torch.testing.assert_close(forward_ad.unpack_dual(out).tangent, expected, rtol=1e-4, atol=1e-4)
        with pytest.raises(RuntimeError, match='without a gradient'):
            inception_conv2d_relu(forward_ad.make_dual(x, moves[0]), weight, None, [(3, 1, 1), (3, 2, 3)])


def test_sizes_that_no_kernel_computes_with():
    x, weight = randn(1, 4, 3, 3), randn(4, 4, 3, 3)
    for dilation in (2**20 + 1, 2**62, 2**63 - 2, 2**63):
        with pytest.raises(ValueError, match='expected dilations and channels up to 1048576'):
            inception_conv2d(x, weight, None, [(2, 1, 1), (2, dilation, 1)])
    with pytest.raises(ValueError, match=r'stride must be in 1\.\.1048576'):
        inception_conv2d(x, weight, None, [(2, 1, 1), (2, 1, 2)], stride=2**62)
    with pytest.raises(ValueError, match=r'x must have at least one channel, got \[1, 0, 3, 3\]'):
        inception_conv2d(x[:, :0], weight[:, :0], None, [(2, 1, 1), (2, 1, 2)])
