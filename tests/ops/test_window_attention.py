"""Both attention operators: independence of the blocks, half precision, errors, torch's tools."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from icconv_mm.ops import mixture_attention, tensors, window_attention
from icconv_mm.ops.mixture_attention import reference as mixture_definition
from icconv_mm.ops.window_attention import SIMILARITIES
from icconv_mm.ops.window_attention import reference as window_definition


def mixture_inputs(dtype=torch.float64, bias=True):
    shapes = {'q': (2, 3, 4, 37), 'k': (2, 3, 4, 11), 'v': (2, 5, 11), 'mix': (2, 3), 'bias': (2, 3, 11)}
    tensors = [torch.randn(shape, dtype=dtype, requires_grad=True) for shape in shapes.values()]
    return [*tensors[: 5 if bias else 4], *([] if bias else [None]), 0.7]


def window_inputs(similarity='euclidean', coarse=(4, 5), dtype=torch.float64):
    shapes = (2, 6, 7, 9), (2, 6, *coarse), (2, 5, *coarse), (2, 3)
    return [*(torch.randn(shape, dtype=dtype, requires_grad=True) for shape in shapes), 3, similarity]


def channels_last(args):
    """The same values, positions first in memory: as a convolution in that format leaves them."""
    strided = [x.detach().transpose(-1, -2).contiguous().transpose(-1, -2).requires_grad_() for x in args[:3]]
    return [*strided, *args[3:]]


CALLS = {
    'mixture': lambda: (mixture_attention, mixture_definition, mixture_inputs()),
    'mixture, channels last': lambda: (mixture_attention, mixture_definition, channels_last(mixture_inputs())),
    'mixture without bias': lambda: (mixture_attention, mixture_definition, mixture_inputs(bias=False)),
    **{
        f'window {similarity} {coarse}': lambda similarity=similarity, coarse=coarse: (
            window_attention,
            window_definition,
            window_inputs(similarity, coarse),
        )
        for similarity in SIMILARITIES
        for coarse in ((4, 5), (7, 9), (3, 4))
    },
}


def differentiable(args):
    return [x for x in args if isinstance(x, torch.Tensor)]


@pytest.mark.parametrize('workspace', [1, 20_000, 1 << 30], ids=['small blocks', 'larger blocks', 'one block'])
@pytest.mark.parametrize('call', CALLS)
def test_blocks_do_not_change_the_result(call, workspace, monkeypatch):
    monkeypatch.setitem(tensors.WORKSPACE, 'cpu', workspace)
    operator, reference, args = CALLS[call]()
    out, expected = operator(*args), reference(*args)
    outer = torch.randn_like(expected)
    torch.testing.assert_close(out, expected, rtol=1e-10, atol=1e-10)
    grads = [torch.autograd.grad(result, differentiable(args), outer) for result in (out, expected)]
    torch.testing.assert_close(*grads, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize('call', CALLS)
def test_opcheck(call, opcheck):
    operator, _, args = CALLS[call]()
    opcheck(getattr(torch.ops.icconv_mm, operator.__name__).default, tuple(args))


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize('call', ['mixture', 'window euclidean (4, 5)'])
def test_half_precision_is_computed_in_float32(call, dtype):
    operator, reference, args = CALLS[call]()
    args = [x.to(dtype).detach().requires_grad_() if isinstance(x, torch.Tensor) else x for x in args]
    exact = [x.detach().float().requires_grad_() if isinstance(x, torch.Tensor) else x for x in args]
    out, expected = operator(*args), reference(*exact)
    assert out.dtype == dtype
    torch.testing.assert_close(out, expected.to(dtype))
    outer = torch.randn_like(out)
    grads = torch.autograd.grad(out, differentiable(args), outer)
    wanted = torch.autograd.grad(expected, differentiable(exact), outer.float())
    torch.testing.assert_close(grads, tuple(grad.to(dtype) for grad in wanted))


def test_autocast_leaves_the_dtypes(monkeypatch):
    q, k, v, mix, bias, scale = mixture_inputs(torch.float32)
    expected = mixture_attention(q, k, v, mix, bias, scale)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        out = mixture_attention(q, k, v, mix, bias, scale)
        grad = torch.autograd.grad(out.sum(), q)
    assert torch.equal(out, expected)
    assert torch.equal(grad[0], torch.autograd.grad(expected.sum(), q)[0])


@pytest.mark.parametrize('call', ['mixture', 'window dot (4, 5)'])
def test_there_is_no_second_derivative(call):
    operator, _, args = CALLS[call]()
    (grad,) = torch.autograd.grad(operator(*args).square().sum(), args[0], create_graph=True)
    with pytest.raises(RuntimeError, match='once_differentiable'):
        grad.sum().backward()


@pytest.mark.parametrize('call', ['mixture', 'window euclidean (4, 5)'])
def test_an_empty_batch(call):
    operator, _, args = CALLS[call]()
    empty = [x[:0] if isinstance(x, torch.Tensor) else x for x in args]
    out = operator(*empty)
    assert out.shape[0] == 0
    out.sum().backward()


@pytest.mark.parametrize('call', CALLS)
def test_transforms_of_torch_func(call):
    operator, _, args = CALLS[call]()
    used = tuple(tensor.detach() for tensor in args if isinstance(tensor, torch.Tensor))

    def function(*given):
        given = iter(given)
        return operator(*(next(given) if isinstance(arg, torch.Tensor) else arg for arg in args))

    cotangent = torch.randn_like(function(*used))
    expected = torch.autograd.grad(operator(*args), differentiable(args), cotangent)
    torch.testing.assert_close(torch.func.vjp(function, *used)[1](cotangent), expected)
    tangents = tuple(map(torch.randn_like, used))
    _, tangent = torch.func.jvp(function, used, tangents)
    pairs = sum((one * other).sum() for one, other in zip(expected, tangents))
    torch.testing.assert_close((cotangent * tangent).sum(), pairs)


@pytest.mark.parametrize('call', ['mixture', 'window euclidean (4, 5)'])
def test_compiles_without_a_break(call):
    operator, _, args = CALLS[call]()

    def loss(*args):
        return operator(*args).square().sum()

    compiled = torch.compile(loss, backend='aot_eager', fullgraph=True)
    grads = [torch.autograd.grad(function(*args), differentiable(args)) for function in (compiled, loss)]
    torch.testing.assert_close(*grads)


def test_flops_are_counted():
    q, k, v, mix, bias, scale = mixture_inputs()
    with FlopCounterMode(display=False) as forward:
        out = mixture_attention(q, k, v, mix, bias, scale)
    with FlopCounterMode(display=False) as backward:
        out.sum().backward()
    assert forward.get_total_flops() == 2 * 2 * 37 * 11 * (12 + 5)
    assert backward.get_total_flops() == 2 * 2 * 37 * 11 * (3 * 12 + 2 * 5)
    with FlopCounterMode(display=False) as forward:
        window_attention(*window_inputs())
    assert forward.get_total_flops() == 2 * 2 * 63 * 9 * (6 + 5)


def changed(index, value, make=mixture_inputs):
    args = make()
    args[index] = value
    return args


@pytest.mark.parametrize(
    ('operator', 'args', 'message'),
    [
        (mixture_attention, changed(0, torch.randn(2, 12, 37)), r'expected q \[B, N, d, N_q\].* got \[2, 12, 37\]'),
        (mixture_attention, changed(0, torch.randn(2, 3, 5, 37)), r'q \[2, 3, 5, 37\] and k \[2, 3, 4, 11\] differ'),
        (mixture_attention, changed(2, torch.randn(2, 5, 12)), r'expected \[2, C, 11\]'),
        (mixture_attention, changed(3, torch.randn(2, 4)), r'mix must have the shape \[2, 3\], got \[2, 4\]'),
        (mixture_attention, changed(4, torch.randn(2, 11)), r'bias must have the shape \[2, 3, 11\], got \[2, 11\]'),
        (
            mixture_attention,
            [torch.randn(1, 1, 2, 3), torch.randn(1, 1, 2, 0), torch.randn(1, 2, 0), torch.ones(1, 1)],
            'at least one key',
        ),
        (window_attention, changed(4, 2, window_inputs), 'odd and positive, got 2'),
        (window_attention, changed(4, 5, window_inputs), 'a window of 5 is larger than the coarse map of 4 x 5'),
        (window_attention, changed(5, 'cosine', window_inputs), "one of euclidean, embedded, dot, got 'cosine'"),
        (window_attention, changed(2, torch.randn(2, 5, 4, 4), window_inputs), 'do not fit'),
        (window_attention, changed(3, torch.randn(2, 4), window_inputs), r'mix \[2, 4\] must be \[B, N\]'),
        (window_attention, changed(0, torch.randn(6, 7, 9), window_inputs), r'got \[6, 7, 9\]'),
    ],
)
def test_errors(operator, args, message):
    with pytest.raises(ValueError, match=message):
        operator(*args)
