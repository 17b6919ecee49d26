import pytest
import torch
from half import half_on_cpu
from pyconv_calls import Call, by_level, random_call

from icconv_mm.ops import pyconv2d, use_backend

DTYPES = {torch.float64: 1e-12, torch.float32: 2e-6, torch.bfloat16: 2e-2}
if half_on_cpu():
    DTYPES[torch.float16] = 3e-3


def small_call() -> Call:
    """Three levels, one of them rectangular, with groups."""
    shapes = [(2, 4, 3, 3), (4, 2, 5, 5), (4, 1, 3, 1)]
    return Call(torch.randn(2, 4, 6, 5), [torch.randn(shape) for shape in shapes], torch.randn(10), [1, 2, 4], 1, 1)


def assert_near(got, expected, tolerance):
    """Largest deviation relative to the largest value."""
    assert got.shape == expected.shape
    if expected.numel():
        scale = expected.abs().max().clamp(min=1e-3)
        assert ((got.double() - expected.double()).abs().max() / scale).item() <= tolerance


def gradients(function, call: Call):
    tensors = [t.detach().requires_grad_() for t in (call.x, *call.weights, call.bias) if t is not None]
    bias = tensors[-1] if call.bias is not None else None
    out = function(call._replace(x=tensors[0], weights=tensors[1 : len(call.weights) + 1], bias=bias))
    grad = torch.randn(out.shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64).to(out.dtype)
    return [out.detach(), *torch.autograd.grad(out, tensors, grad)]


@pytest.mark.parametrize('dtype', DTYPES, ids=str)
@pytest.mark.parametrize('backend', ['reference', 'auto'])
@pytest.mark.parametrize('seeds', [range(start, start + 25) for start in range(0, 75, 25)], ids=str)
def test_agrees_with_the_definition(dtype, backend, seeds):
    """Output and gradients of random calls against one padded convolution per level and group, in float64."""
    for seed in seeds:
        call = random_call(seed).to(dtype)
        expected = gradients(by_level, call.to(torch.float64))
        with use_backend(backend):
            got = gradients(lambda c: pyconv2d(*c), call)
        for one, other in zip(got, expected, strict=True):
            assert one.dtype == dtype
            assert_near(one, other, DTYPES[dtype])


@pytest.mark.parametrize('backend', ['reference', 'auto'])
@pytest.mark.parametrize('levels', [1, 2])
@pytest.mark.parametrize(('width', 'stride'), [(1, 2), (2, 2), (1, 3), (3, 3)])
def test_bfloat16_with_one_column_of_outputs(backend, levels, width, stride):
    """torch 2.11 itself computes such outputs wrongly, and leaves some weight gradients uninitialised."""
    torch.manual_seed(0)
    weights = [torch.randn(4, 4, 3, 3), torch.randn(4, 2, 5, 5)][:levels]
    call = Call(torch.randn(2, 4, 20, width), weights, None, [1, 2][:levels], stride, 1).to(torch.bfloat16)
    expected = gradients(by_level, call.to(torch.float64))
    # memory that is handed out again
    junk = [torch.full((size,), 1e30) for size in range(1, 400, 3)]
    del junk
    with use_backend(backend):
        got = gradients(lambda c: pyconv2d(*c), call)
    for one, other in zip(got, expected, strict=True):
        assert_near(one, other, DTYPES[torch.bfloat16])


@pytest.mark.parametrize(('stride', 'dilation'), [(1, 1), (2, 1), (1, 2)])
def test_derivatives_of_second_order(stride, dilation):
    shapes = [(1, 4, 4, 3), (6,), (2, 4, 3, 3), (4, 1, 5, 1)]
    inputs = [torch.randn(shape).double().requires_grad_() for shape in shapes]

    def function(x, bias, *weights):
        return pyconv2d(x, weights, bias, [1, 4], stride, dilation)

    assert torch.autograd.gradcheck(function, inputs)
    assert torch.autograd.gradgradcheck(function, inputs)


@pytest.mark.parametrize('backend', ['reference', 'auto'])
@pytest.mark.parametrize('levels', [1, 3])
def test_keeps_the_memory_format(backend, levels):
    call = small_call()
    rest = call.weights[:levels], None, call.groups[:levels]
    with use_backend(backend):
        assert pyconv2d(call.x, *rest).is_contiguous()
        x = call.x.to(memory_format=torch.channels_last).requires_grad_()
        out = pyconv2d(x, *rest)
        assert out.is_contiguous(memory_format=torch.channels_last)
        out.backward(out.detach())
    assert x.grad.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize('dtype', [torch.bfloat16, pytest.param(torch.float16, marks=pytest.mark.skipif(
    torch.float16 not in DTYPES, reason='this torch has no float16 convolution on the CPU'))])  # fmt: skip
def test_autocast(dtype):
    call = small_call()
    leaves = [t.requires_grad_() for t in (call.x, *call.weights)]
    with torch.autocast('cpu', dtype=dtype):
        out = pyconv2d(*call)
        assert pyconv2d(*call.to(torch.float64)).dtype == torch.float64
    assert out.dtype == dtype
    assert_near(out, by_level(call), DTYPES[dtype])
    out.float().sum().backward()
    assert all(leaf.grad.dtype == torch.float32 for leaf in leaves)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'x': torch.ones(4, 5, 5)}, r'x must have the shape \[N, C_in, H, W\], got \[4, 5, 5\]'),
        ({'groups': [1, 2]}, 'one entry per level, got 3 and 2'),
        ({'x': torch.ones(1, 6, 5, 5)}, r'level 0: x \[1, 6, 5, 5\] and weight .* expected x with 4 channels'),
        ({'groups': [1, 4, 4]}, 'level 1: .* do not fit 4 groups: expected x with 8 channels'),
        ({'weights': [torch.ones(2, 4, 2, 3)], 'groups': [1]}, r'level 0: .* must be odd, got \(2, 3\)'),
        ({'bias': torch.ones(9)}, r'bias must have the shape \[10\], got \[9\]'),
        ({'groups': 1}, 'groups must be a list of numbers, one per level, got 1'),
        (
            {'weights': torch.ones(4, 4, 3, 3), 'groups': [1]},
            r'weights must be a list of tensors, one per level, got a tensor \[4, 4, 3, 3\]',
        ),
        ({'stride': 0}, 'stride=0, dilation=1'),
    ],
)
def test_errors_say_what_they_got(changes, message):
    with pytest.raises(ValueError, match=message):
        pyconv2d(*small_call()._replace(**changes))


def calls_of_all_operators():
    call = small_call().to(torch.float64)
    grad = by_level(call)
    weights = [weight.requires_grad_() for weight in call.weights]
    x, bias, grad = (t.requires_grad_() for t in (call.x, call.bias, grad))
    shapes = [number for weight in weights for number in (weight.shape[0], *weight.shape[2:])]
    rest = call.groups, call.stride, call.dilation
    ops = torch.ops.icconv_mm
    return [
        (ops.pyconv2d, (x, weights, bias, *rest)),
        (ops.pyconv2d, (x, weights, None, *rest)),
        (ops.pyconv2d_grad_input, (grad, weights, x.shape[2:], *rest)),
        (ops.pyconv2d_grad_weight, (grad, x, shapes, *rest)),
    ]


@pytest.mark.skipif(not hasattr(torch.library, 'opcheck'), reason='torch.library.opcheck came with torch 2.4')
@pytest.mark.parametrize('channels_last', [False, True])
@pytest.mark.parametrize('number', range(4))
def test_opcheck(number, channels_last):
    operator, args = calls_of_all_operators()[number]
    if channels_last:
        args = tuple(
            a.detach().to(memory_format=torch.channels_last).requires_grad_()
            if isinstance(a, torch.Tensor) and a.ndim == 4
            else a
            for a in args
        )
    torch.library.opcheck(operator, args)
