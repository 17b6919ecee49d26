"""Calls of the operators with anything: the result of plain convolutions, or an exception that says what is wrong."""

import math

import torch
from hypothesis import given
from hypothesis import strategies as st
from inception_calls import Call, per_run

from icconv_mm.ops import backends, inception_conv2d, inception_conv2d_relu, pyconv2d
from icconv_mm.ops import pyconv as pyramid

SIZES = st.integers(0, 12)
TOLERANCE = {torch.float64: 1e-9, torch.float32: 2e-5, torch.bfloat16: 4e-2}


class Sub(torch.Tensor):
    """A tensor of another class."""


def as_drawn(data, tensor: torch.Tensor) -> torch.Tensor:
    """The same values, kept in another way."""
    kind = data.draw(st.sampled_from(['plain', 'channels_last', 'gaps', 'swapped', 'inference', 'subclass', 'alias']))
    if kind == 'channels_last':
        return tensor.contiguous(memory_format=torch.channels_last)
    if kind == 'gaps':
        wide = tensor.new_full((*tensor.shape[:-1], 2 * tensor.shape[-1] + 1), math.nan)
        wide[..., : 2 * tensor.shape[-1] : 2] = tensor
        return wide[..., : 2 * tensor.shape[-1] : 2]
    if kind == 'swapped':
        return tensor.transpose(2, 3).contiguous().transpose(2, 3)
    if kind == 'inference':
        with torch.inference_mode():
            return tensor.clone()
    if kind == 'subclass':
        return tensor.as_subclass(Sub)
    return tensor.data if kind == 'alias' else tensor


def near(got, expected, dtype):
    assert got.shape == expected.shape and got.dtype == dtype
    scale = expected.abs().max().clamp(min=1.0) if expected.numel() else 1.0
    assert ((got.double() - expected).abs() <= TOLERANCE[dtype] * scale).all()


@given(data=st.data())
def test_inception_calls(case, data):
    draw = data.draw
    groups, inside, outside = draw(st.integers(1, 4)), draw(st.integers(1, 20)), draw(st.integers(1, 20))
    size = draw(st.tuples(st.integers(0, 3), SIZES.map(lambda n: max(n, 1)), st.integers(1, 30)))
    dtype = draw(st.sampled_from(list(TOLERANCE)))
    runs, left = [], groups * outside
    while left:
        runs.append((draw(st.integers(0, left)), draw(st.integers(1, 40)), draw(st.integers(1, 40))))
        left -= runs[-1][0]
        if len(runs) > 8:
            runs.append((left, 2**20, 1))
            left = 0
    case.holds(repr((groups, inside, outside, size, dtype, runs)).encode())
    torch.manual_seed(draw(st.integers(0, 1000)))
    x = torch.randn(size[0], groups * inside, *size[1:]).to(dtype)
    weight = torch.randn(groups * outside, inside, 3, 3).to(dtype)
    bias = torch.randn(groups * outside).to(dtype) if draw(st.booleans()) else None
    stride = draw(st.sampled_from([1, 1, 2, 3, 50]))
    exact = Call(x, weight, bias, [run for run in runs if run[0]], stride, groups).to(torch.float64)
    expected = per_run(exact)
    with torch.no_grad():
        arguments = as_drawn(data, x), as_drawn(data, weight), bias
        for _ in range(3):  # packed, kept, taken from what is kept
            near(inception_conv2d(*arguments, runs, stride, groups), expected, dtype)
        near(inception_conv2d_relu(*arguments, runs, stride, groups), expected.relu(), dtype)
    if not dtype.is_floating_point or size[0] == 0:
        return
    x, weight = x.detach().requires_grad_(), weight.detach().requires_grad_()
    gradients = torch.autograd.grad(inception_conv2d(x, weight, bias, runs, stride, groups).sum(), (x, weight))
    exact = exact._replace(x=exact.x.requires_grad_(), weight=exact.weight.requires_grad_())
    for got, other in zip(gradients, torch.autograd.grad(per_run(exact).sum(), (exact.x, exact.weight)), strict=True):
        near(got, other, dtype)


@given(data=st.data())
def test_pyramid_calls(case, data):
    draw = data.draw
    channels = draw(st.sampled_from([1, 4, 6, 16, 24]))
    dtype = draw(st.sampled_from(list(TOLERANCE)))
    torch.manual_seed(draw(st.integers(0, 1000)))
    x = torch.randn(draw(st.integers(0, 2)), channels, draw(st.integers(1, 12)), draw(st.integers(1, 20))).to(dtype)
    groups = draw(st.lists(st.sampled_from([g for g in (1, 2, 3, 4, 8) if channels % g == 0]), min_size=1, max_size=4))
    weights = []
    for group in groups:
        kernel = draw(st.sampled_from([1, 3, 5, 7])), draw(st.sampled_from([1, 3, 5]))
        weights.append(torch.randn(group * draw(st.integers(1, 5)), channels // group, *kernel).to(dtype))
    stride, dilation = draw(st.integers(1, 4)), draw(st.sampled_from([1, 1, 2, 7]))
    case.holds(repr((list(x.shape), groups, [list(weight.shape) for weight in weights], stride, dilation)).encode())
    expected = pyramid.forward(x.double(), [weight.double() for weight in weights], None, groups, stride, dilation)
    with torch.no_grad():
        arguments = as_drawn(data, x), [as_drawn(data, weight) for weight in weights]
        for _ in range(3):
            near(pyconv2d(*arguments, None, groups, stride, dilation), expected, dtype)


WILD = st.one_of(st.integers(-2, 9), st.sampled_from([2**20, 2**31, 2**40, 2**62, 2**63 - 2, 2**63 - 1, -(2**63)]))


@given(data=st.data())
def test_arguments_that_do_not_fit(case, data):
    """Through the public functions and straight to the compiled operators, which check once more."""
    draw = data.draw
    shapes = draw(st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=5), min_size=2, max_size=2))
    if draw(st.booleans()):
        shapes = [[1, 4, 5, 5], [6, 4, 3, 3]]
    dtypes = draw(
        st.tuples(*[st.sampled_from([torch.float32, torch.float32, torch.bfloat16, torch.int32, torch.bool])] * 2)
    )
    x, weight = (torch.zeros(shape).to(dtype) for shape, dtype in zip(shapes, dtypes))
    pattern = draw(st.lists(st.tuples(WILD, WILD, WILD), max_size=4))
    stride, groups = draw(WILD), draw(WILD)
    case.holds(repr((shapes, dtypes, pattern, stride, groups)).encode())
    flat = [number for run in pattern for number in run]
    size = draw(st.lists(st.integers(-2, 6), max_size=3))
    ops = torch.ops.icconv_mm
    calls = [lambda: inception_conv2d(x, weight, None, pattern, stride, groups)]
    calls += [lambda: pyconv2d(x, [weight], None, [groups], stride, draw(WILD))]
    if backends()['cpu']:
        calls += [lambda: ops.inception_conv2d_compiled(x, weight, None, flat, stride, groups)]
        calls += [lambda: ops.inception_conv2d_grad_input_compiled(x, weight, size, flat, stride, groups)]
        calls += [lambda: ops.inception_conv2d_grad_weight_compiled(x, weight, flat, stride, groups)]
        calls += [lambda: ops.pyconv2d_compiled(x, [weight, weight], None, [groups, 1], stride, draw(WILD))]
    for call in calls:
        try:
            call()
        except (ValueError, RuntimeError, OverflowError) as error:
            assert str(error)
