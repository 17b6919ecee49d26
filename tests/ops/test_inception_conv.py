import pytest
import torch
from half import half_on_cpu
from inception_calls import Call, per_run, random_call
from torch.autograd import forward_ad

from icconv_mm.ops import inception_conv2d, inception_conv2d_relu, use_backend
from icconv_mm.patterns import DilationPattern

PATTERN = [(2, 1, 2), (1, 3, 1), (3, 1, 1)]


DTYPES = {torch.float64: 1e-12, torch.float32: 2e-6, torch.bfloat16: 2e-2}
if half_on_cpu():
    DTYPES[torch.float16] = 3e-3


def assert_near(got, expected, tolerance):
    """Largest deviation relative to the largest value."""
    assert got.shape == expected.shape
    if expected.numel():
        scale = expected.abs().max().clamp(min=1e-3)
        assert ((got.double() - expected.double()).abs().max() / scale).item() <= tolerance


def gradients(function, call: Call):
    tensors = [t.detach().requires_grad_() for t in (call.x, call.weight, call.bias) if t is not None]
    bias = tensors[2] if call.bias is not None else None
    out = function(call._replace(x=tensors[0], weight=tensors[1], bias=bias))
    grad = torch.randn(out.shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64).to(out.dtype)
    return [out.detach(), *torch.autograd.grad(out, tensors, grad)]


@pytest.mark.parametrize('dtype', DTYPES, ids=str)
@pytest.mark.parametrize('backend', ['reference', 'auto'])
@pytest.mark.parametrize('seeds', [range(start, start + 25) for start in range(0, 75, 25)], ids=str)
def test_agrees_with_the_definition(dtype, backend, seeds):
    """Output and gradients of random calls against one plain convolution per run, in float64."""
    for seed in seeds:
        call = random_call(seed).to(dtype)
        expected = gradients(per_run, call.to(torch.float64))
        with use_backend(backend):
            got = gradients(lambda c: inception_conv2d(*c), call)
        for one, other in zip(got, expected):
            assert one.dtype == dtype
            assert_near(one, other, DTYPES[dtype])


@pytest.mark.parametrize('backend', ['reference', 'auto'])
@pytest.mark.parametrize('pattern', [[(4, 1, 1)], [(3, 1, 1), (1, 2, 2)]], ids=['dense', 'two dilations'])
@pytest.mark.parametrize(('width', 'stride'), [(1, 2), (2, 2), (1, 3), (3, 3)])
@pytest.mark.parametrize('autocast', [False, True])
def test_bfloat16_with_one_column_of_outputs(backend, pattern, width, stride, autocast):
    """torch 2.11 itself computes such outputs wrongly, and leaves some weight gradients uninitialised."""
    torch.manual_seed(0)
    x, weight = torch.randn(2, 3, 20, width), torch.randn(4, 3, 3, 3)
    call = Call(x, weight, None, pattern, stride, 1).to(torch.bfloat16)
    expected = gradients(per_run, call.to(torch.float64))
    # memory that is handed out again
    junk = [torch.full((size,), 1e30) for size in range(1, 400, 3)]
    del junk
    with use_backend(backend), torch.autocast('cpu', torch.bfloat16, enabled=autocast):
        got = gradients(lambda c: inception_conv2d(*c), call.to(torch.float32) if autocast else call)
    assert got[0].dtype == torch.bfloat16
    for one, other in zip(got, expected, strict=True):
        assert_near(one, other, DTYPES[torch.bfloat16])


@pytest.mark.parametrize('function', [inception_conv2d, inception_conv2d_relu])
def test_one_dilation_in_several_runs_is_an_ordinary_convolution(function, monkeypatch):
    """No operator is called for it, so that all of its tools serve."""
    x, weight = torch.randn(1, 4, 9, 9), torch.randn(6, 2, 3, 3)
    want = torch.nn.functional.conv2d(x, weight, None, 2, (2, 3), (2, 3), 2)
    monkeypatch.setattr('icconv_mm.ops.dispatch.run', None)
    with use_backend('reference'):  # which is not reached past the operator
        got = function(x, weight, None, [(4, 2, 3), (2, 2, 3)], stride=2, groups=2)
    assert torch.equal(got, want.relu() if function is inception_conv2d_relu else want)


@pytest.mark.parametrize('stride', [1, 2])
@pytest.mark.parametrize('groups', [1, 2])
def test_derivatives_of_second_order(stride, groups):
    call = Call(
        *(torch.randn(s).double() for s in ((2, 4, 5, 4), (6, 4 // groups, 3, 3), (6,))), PATTERN, stride, groups
    )
    inputs = [t.requires_grad_() for t in call[:3]]

    def function(x, weight, bias):
        return inception_conv2d(x, weight, bias, PATTERN, stride, groups)

    assert torch.autograd.gradcheck(function, inputs)
    assert torch.autograd.gradgradcheck(function, inputs)


@pytest.mark.parametrize('backend', ['reference', 'auto'])
@pytest.mark.parametrize(
    'pattern', [PATTERN, [(6, 1, 1)], [(1, 1, 1), (1, 2, 2)] * 3], ids=['sorted', 'dense', 'mixed']
)
def test_keeps_the_memory_format(backend, pattern):
    x, weight = torch.randn(2, 4, 6, 5), torch.randn(6, 4, 3, 3)
    with use_backend(backend):
        assert inception_conv2d(x, weight, None, pattern).is_contiguous()
        x = x.to(memory_format=torch.channels_last).requires_grad_()
        out = inception_conv2d(x, weight, None, pattern)
        assert out.is_contiguous(memory_format=torch.channels_last)
        out.backward(out.detach())
    assert x.grad.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize('dtype', [torch.bfloat16, pytest.param(torch.float16, marks=pytest.mark.skipif(
    torch.float16 not in DTYPES, reason='this torch has no float16 convolution on the CPU'))])  # fmt: skip
def test_autocast(dtype):
    x, weight = torch.randn(2, 4, 6, 5, requires_grad=True), torch.randn(6, 4, 3, 3, requires_grad=True)
    bias = torch.randn(6)
    with torch.autocast('cpu', dtype=dtype):
        out = inception_conv2d(x, weight, bias, PATTERN)
        assert inception_conv2d(x.double(), weight.double(), None, PATTERN).dtype == torch.float64
    assert out.dtype == dtype
    assert_near(out, per_run(Call(x, weight, bias, PATTERN, 1, 1)), DTYPES[dtype])
    out.float().sum().backward()
    assert x.grad.dtype == weight.grad.dtype == torch.float32


@pytest.mark.parametrize(
    ('x', 'weight', 'bias', 'pattern', 'stride', 'groups', 'message'),
    [
        ((4, 5, 5), (6, 4, 3, 3), None, PATTERN, 1, 1, r'x must have the shape \[N, C_in, H, W\], got \[4, 5, 5\]'),
        ((1, 3, 5, 5), (6, 4, 3, 3), None, PATTERN, 1, 1, r'x \[1, 3, 5, 5\] and weight .* expected x with 4 channels'),
        ((1, 4, 5, 5), (7, 4, 3, 3), None, PATTERN, 1, 1, 'the pattern sums to 6 channels, weight has 7 filters'),
        ((1, 4, 5, 5), (6, 4, 3, 3), (5,), PATTERN, 1, 1, r'bias must have the shape \[6\], got \[5\]'),
        ((1, 4, 5, 5), (6, 4, 3, 3), None, PATTERN, 0, 1, 'stride=0'),
        ((1, 4, 5, 5), (6, 4, 3, 3), None, [(6, 0, 1)], 1, 1, r'a dilation must be at least 1, got \(0, 1\)'),
        ((1, 4, 5, 5), (6, 4, 3, 3), None, [6], 1, 1, 'run 0: expected three integers'),
        ((1, 4, 5, 5), (6, 4, 3, 3), None, 'dense', 1, 1, "a layer is a table of runs .*, got 'dense'; names"),
    ],
)
def test_errors_say_what_they_got(x, weight, bias, pattern, stride, groups, message):
    bias = None if bias is None else torch.ones(bias)
    with pytest.raises(ValueError, match=message):
        inception_conv2d(torch.ones(x), torch.ones(weight), bias, pattern, stride, groups)


def calls_of_all_operators():
    call = random_call(3, min_batch=1)
    flat = list(DilationPattern(call.pattern).flat)
    x, weight = call.x.requires_grad_(), call.weight.requires_grad_()
    bias = torch.randn(weight.shape[0], dtype=torch.float64, requires_grad=True)
    grad = per_run(call).detach().requires_grad_()
    ops = torch.ops.icconv_mm
    return [
        (ops.inception_conv2d, (x, weight, bias, flat, call.stride, call.groups)),
        (ops.inception_conv2d, (x, weight, None, flat, call.stride, call.groups)),
        (ops.inception_conv2d_grad_input, (grad, weight, x.shape[2:], flat, call.stride, call.groups)),
        (ops.inception_conv2d_grad_weight, (grad, x, flat, call.stride, call.groups)),
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


@pytest.mark.parametrize('grad', [True, False])
@pytest.mark.parametrize('choice', ['reference', 'auto'])
def test_forward_mode_differentiation(grad, choice):
    """Tangents do not depend on whether gradients are recorded."""
    x, weight, bias = torch.randn(2, 4, 6, 5), torch.randn(6, 4, 3, 3), torch.randn(6)
    moves = [torch.randn_like(each) for each in (x, weight, bias)]
    zero = torch.zeros(6)

    def call(x, weight, bias):
        return inception_conv2d(x, weight, bias, [(3, 1, 1), (3, 2, 3)], stride=2)

    expected = call(moves[0], weight, zero) + call(x, moves[1], zero) + moves[2][:, None, None]
    with torch.set_grad_enabled(grad), use_backend(choice), forward_ad.dual_level():
        out = call(*map(forward_ad.make_dual, (x, weight, bias), moves))
        torch.testing.assert_close(forward_ad.unpack_dual(out).tangent, expected, rtol=1e-4, atol=1e-4)
        with pytest.raises(RuntimeError, match='without a gradient'):
            inception_conv2d_relu(forward_ad.make_dual(x, moves[0]), weight, None, [(3, 1, 1), (3, 2, 3)])


def test_sizes_that_no_kernel_computes_with():
    x, weight = torch.randn(1, 4, 3, 3), torch.randn(4, 4, 3, 3)
    for dilation in (2**20 + 1, 2**62, 2**63 - 2, 2**63):
        with pytest.raises(ValueError, match='expected dilations and channels up to 1048576'):
            inception_conv2d(x, weight, None, [(2, 1, 1), (2, dilation, 1)])
    with pytest.raises(ValueError, match=r'stride must be in 1\.\.1048576'):
        inception_conv2d(x, weight, None, [(2, 1, 1), (2, 1, 2)], stride=2**62)
    with pytest.raises(ValueError, match=r'x must have at least one channel, got \[1, 0, 3, 3\]'):
        inception_conv2d(x[:, :0], weight[:, :0], None, [(2, 1, 1), (2, 1, 2)])
