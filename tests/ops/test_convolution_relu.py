"""Convolution and ReLU in one operator: against the plain operators, and in every tool that they work with."""

import pytest
import torch
from inception_calls import per_run
from inception_calls import random_call as inception_call
from pyconv_calls import by_level
from pyconv_calls import random_call as pyconv_call
from torch.utils.flop_counter import FlopCounterMode

from icconv_mm.ops import dispatch, inception_conv2d, inception_conv2d_relu, pyconv2d, pyconv2d_relu
from icconv_mm.patterns import DilationPattern

ops = torch.ops.icconv_mm
# operator, the plain one, random calls, definition of the plain one
KINDS = {
    'inception_conv2d': (inception_conv2d_relu, inception_conv2d, inception_call, per_run),
    'pyconv2d': (pyconv2d_relu, pyconv2d, pyconv_call, by_level),
}
TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 2e-2}
kinds = pytest.mark.parametrize('kind', KINDS)


def first_of_several(kind):
    """A call whose operator is used: more than one dilation or level."""
    seed, make = 0, KINDS[kind][2]
    while True:
        call = make(seed, min_batch=1).to(torch.float32)
        if len(call.pattern if kind == 'inception_conv2d' else call.weights) > 2:
            return call
        seed += 1


def raw(kind, call):
    """The arguments of ``torch.ops``."""
    return tuple(list(DilationPattern(a).flat) if name == 'pattern' else a for name, a in call._asdict().items())


@kinds
@pytest.mark.parametrize('dtype', TOLERANCES, ids=str)
@pytest.mark.parametrize('name', ['auto', 'reference'])
def test_is_the_relu_convolution(kind, dtype, name):
    fused, _, make, reference = KINDS[kind]
    for seed in range(60):
        call = make(seed).to(dtype)
        expected = reference(call.to(torch.float64)).relu()
        with dispatch.use_backend(name):
            got = fused(*call)
        assert got.dtype == dtype and got.shape == expected.shape
        if got.numel():
            assert ((got - expected).abs().max() / expected.abs().max().clamp(min=1)).item() <= TOLERANCES[dtype]


@kinds
def test_keeps_the_memory_format(kind):
    call = first_of_several(kind)
    for memory_format in (torch.contiguous_format, torch.channels_last):
        x = torch.randn(2, call.x.shape[1], 6, 7).to(memory_format=memory_format)
        assert KINDS[kind][0](*call._replace(x=x)).is_contiguous(memory_format=memory_format)


@kinds
def test_without_a_fused_kernel_the_plain_one_serves(kind, choice):
    """A backend that has the convolution alone is not lost to the deployed network."""
    call, ran = first_of_several(kind), []
    reference = choice.operators[kind]['reference'].run

    def plain(*args):
        ran.append(dispatch.requested())
        return reference(*args)

    choice.replace(kind, cpu=plain, reference=reference)
    choice.replace(f'{kind}_relu', reference=choice.operators[f'{kind}_relu']['reference'].run)
    KINDS[kind][0](*call)
    with dispatch.use_backend('cpu'):
        KINDS[kind][0](*call)
    with dispatch.use_backend('reference'):
        KINDS[kind][0](*call)
    assert ran == ['auto', 'cpu']


@kinds
def test_has_no_gradient_and_says_so(kind):
    call = first_of_several(kind)
    x = call.x.clone().requires_grad_()
    with pytest.raises(RuntimeError, match=f'{kind}_relu is for inference, without a gradient'):
        KINDS[kind][0](*call._replace(x=x))
    with torch.no_grad():
        expected = KINDS[kind][0](*call._replace(x=x))
    with torch.inference_mode():
        assert torch.equal(KINDS[kind][0](*call), expected)


@pytest.mark.parametrize('stride', [1, 2])  # at 2 torch's own convolution of one column is not trusted
@kinds
def test_one_dilation_or_level_has_no_gradient_either(kind, stride):
    """torch's own convolution, which serves such calls, would have one."""
    x, weight = torch.randn(2, 4, 5, 1, requires_grad=True), torch.randn(6, 4, 3, 3)
    fused, plain = KINDS[kind][:2]

    def call(operator, x, weight, bias=None):
        if kind == 'inception_conv2d':
            return operator(x, weight, bias, [(6, 1, 1)], stride)
        return operator(x, [weight], bias, [1], stride)

    bias = torch.zeros(6, requires_grad=True)
    for args in ((x, weight), (x.detach(), weight.clone().requires_grad_()), (x.detach(), weight, bias)):
        with pytest.raises(RuntimeError, match=f'{kind}_relu is for inference, without a gradient'):
            call(fused, *args)
    with torch.no_grad():
        assert torch.equal(call(fused, x, weight), call(plain, x, weight).relu())
    assert call(fused, x.detach(), weight).min() >= 0
    with pytest.raises(ValueError, match='weight'):  # arguments are checked first
        call(fused, x, weight[0])


@kinds
def test_autocast(kind):
    call = first_of_several(kind)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        got = KINDS[kind][0](*call)
        assert KINDS[kind][0](*call.to(torch.float64)).dtype == torch.float64
    expected = KINDS[kind][3](call).relu()
    assert got.dtype == torch.bfloat16
    assert ((got - expected).abs().max() / expected.abs().max()).item() <= 2e-2


@kinds
def test_flops_are_those_of_the_plain_operator(kind):
    call, counts = first_of_several(kind), []
    for operator in KINDS[kind][:2]:
        with FlopCounterMode(display=False) as counter:
            operator(*call)
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1] > 0


@kinds
def test_opcheck(kind, opcheck):
    args = raw(kind, first_of_several(kind))
    opcheck(getattr(ops, f'{kind}_relu'), args)
    args = (args[0].to(memory_format=torch.channels_last), *args[1:])
    opcheck(getattr(ops, f'{kind}_relu'), args)
