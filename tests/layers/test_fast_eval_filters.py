"""Ordinary convolutions with packed filters, against torch's own."""

import random
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from icconv_mm.layers import fast_eval
from icconv_mm.layers.fast_eval import is_packed, packs
from icconv_mm.ops import backends, forget_packed_weights, use_backend

pytestmark = pytest.mark.skipif(not backends()['cpu'], reason='not compiled')

ONE = (1, 1)


def call(seed: int = 0, size: tuple[int, int] = (11, 9)) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = (2, 8, *size), (6, 8, 3, 3), (6,)
    return tuple(torch.randn(shape, generator=generator) for shape in shapes)


def packed_conv2d(*args) -> Tensor:
    """x, weight, bias, stride, padding, dilation, and if wanted groups and whether ReLU follows."""
    return torch.ops.icconv_mm.packed_conv2d_compiled(*args, *(1, False)[len(args) - 6 :])


def packed_conv2d_add_relu_(*args) -> None:
    """z, and the arguments of :func:`packed_conv2d` but the last."""
    torch.ops.icconv_mm.packed_conv2d_add_relu__compiled(*args, *[1] * (len(args) == 7))


def layer(weight: Tensor, bias: Tensor | None = None) -> nn.Conv2d:
    """The convolution with these filters, padded by one."""
    conv = nn.Conv2d(weight.shape[1], weight.shape[0], weight.shape[2:], padding=1, bias=bias is not None)
    conv.weight = nn.Parameter(weight, weight.requires_grad)
    conv.bias = None if bias is None else nn.Parameter(bias, bias.requires_grad)
    return conv


def same(x: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    torch.testing.assert_close(packed_conv2d(x, weight, bias, ONE, ONE, ONE), F.conv2d(x, weight, bias, padding=1))


@pytest.mark.parametrize('seed', range(40))
def test_random_calls(seed):
    draw = random.Random(seed)
    torch.manual_seed(seed)
    groups = draw.choice([1, 1, 2, 8])
    inside, outside = (draw.choice([1, 2, 3, 8, 16]) for _ in range(2))
    kernel = draw.choice([1, 3, 5]), draw.choice([1, 3])
    stride, padding, dilation = ((draw.randint(low, 2), draw.randint(low, 2)) for low in (1, 0, 1))
    weight = torch.randn(outside * groups, inside, *kernel)
    weight = weight.contiguous(memory_format=draw.choice([torch.channels_last, torch.contiguous_format]))
    bias = draw.choice([None, torch.randn(outside * groups)])
    for _ in range(3):
        x = torch.randn(draw.choice([1, 2]), inside * groups, draw.randint(10, 30), draw.randint(10, 30))
        x = x.contiguous(memory_format=draw.choice([torch.channels_last, torch.contiguous_format]))
        y = F.conv2d(x, weight, bias, stride, padding, dilation, groups)
        for relu in (False, True):
            for _ in range(3):  # packed, packed and kept, kept
                got = packed_conv2d(x, weight, bias, stride, padding, dilation, groups, relu)
                assert got.is_contiguous(memory_format=torch.channels_last)
                torch.testing.assert_close(got, y.relu() if relu else y, rtol=1e-4, atol=1e-4)
        for _ in range(3):
            addend = torch.randn(y.shape).contiguous(memory_format=torch.channels_last)
            expected = (y + addend).relu()
            packed_conv2d_add_relu_(addend, x, weight, bias, stride, padding, dilation, groups)
            torch.testing.assert_close(addend, expected, rtol=1e-4, atol=1e-4)


def test_bfloat16():
    x, weight, _ = (tensor.bfloat16() for tensor in call())
    assert packs(torch.bfloat16) == is_packed(x, layer(weight))
    if packs(torch.bfloat16):
        got, expected = packed_conv2d(x, weight, None, ONE, ONE, ONE), F.conv2d(x.float(), weight.float(), padding=1)
        assert (got - expected).abs().max() <= 0.02 * expected.abs().max()


def test_filters_are_kept_for_the_sizes_of_late():
    x, weight, bias = call()
    forget_packed_weights()
    packed_conv2d(x, weight, bias, ONE, ONE, ONE)
    assert forget_packed_weights() == 0  # seen once
    for height in (11, 10, 9, 8, 7, 6):
        for _ in range(2):
            packed_conv2d(x[:, :, :height], weight, bias, ONE, ONE, ONE)
    assert forget_packed_weights() == 4
    packed_conv2d(x, weight, bias, ONE, ONE, ONE)
    packed_conv2d(x, weight, bias, ONE, ONE, ONE)
    del weight
    packed_conv2d(*call(1), ONE, ONE, ONE)
    assert forget_packed_weights() == 0  # memory of weights that are no more is given back


def test_many_weights_are_told_apart():
    """More than there are kept of one weight, in one memory, and again when some of them are gone."""
    x = torch.randn(1, 8, 5, 5)
    together = torch.randn(60, 6, 8, 3, 3)
    weights = [*together, *(torch.randn(6, 8, 3, 3) for _ in range(60))]
    forget_packed_weights()
    for _ in range(3):
        for weight in weights:
            same(x, weight, None)
    assert forget_packed_weights() == len(weights)
    for _ in range(3):
        for weight in weights:
            same(x, weight, None)
    del weights[60:], weight
    for _ in range(2):
        for weight in [torch.randn(6, 8, 3, 3) for _ in range(40)]:
            same(x, weight, None)
    for weight in weights:
        same(x, weight, None)
    assert forget_packed_weights() == len(weights)


def test_threads_with_other_sizes_share_weights():
    _, weight, bias = call()
    inputs = [torch.randn(1, 8, 6 + number % 5, 9) for number in range(40)]
    with ThreadPoolExecutor(4) as pool:
        for x, y in zip(inputs, pool.map(lambda x: packed_conv2d(x, weight, bias, ONE, ONE, ONE), inputs)):
            torch.testing.assert_close(y, F.conv2d(x, weight, bias, padding=1))


def test_calls_that_are_left_to_torch():
    x, weight, bias = call()
    conv = layer(weight, bias)
    assert is_packed(x, conv)
    for others in ((x[0], conv), (x[:0], conv), (x.double(), conv), (x.double(), layer(weight.double()))):
        assert not is_packed(*others)
    assert not is_packed(x.requires_grad_(), conv)
    with torch.no_grad():
        assert is_packed(x, conv)
        with use_backend('reference'):
            assert not is_packed(x, conv)
        with torch.autocast('cpu'):
            assert not is_packed(x, conv)
        with torch.backends.mkldnn.flags(enabled=False):
            assert not is_packed(x, conv)
        with FlopCounterMode(display=False):
            assert not is_packed(x, conv)
    assert not is_packed(x.detach(), conv.to('meta'))


X, WEIGHT, BIAS = call()


@pytest.mark.parametrize(
    ('args', 'message'),
    [
        ((X[0], WEIGHT, BIAS, ONE, ONE, ONE), r'expected a map and filters of one dtype, 4-d, got .*\[8, 11, 9\]'),
        ((X.double(), WEIGHT, BIAS, ONE, ONE, ONE), 'of one dtype.*Double'),
        ((X, WEIGHT, BIAS, (1,), ONE, ONE), r'expected two numbers each, got stride \[1\]'),
        ((X[:, :4], WEIGHT, BIAS, ONE, ONE, ONE), r'\[2, 4, 11, 9\] and weight \[6, 8, 3, 3\] do not fit 1 groups'),
        ((X, WEIGHT, BIAS, ONE, ONE, ONE, 0), 'do not fit 0 groups'),
        ((X[:, :0], WEIGHT[:, :0], BIAS, ONE, ONE, ONE), r'weight \[6, 0, 3, 3\] do not fit 1 groups'),
        ((X, WEIGHT, BIAS, (0, 1), ONE, ONE), r'with stride \[0, 1\].* does not fit a map'),
        ((X, WEIGHT, BIAS, ONE, (-1, 0), ONE), r'padding \[-1, 0\].* does not fit a map'),
        ((X, WEIGHT, BIAS, ONE, (0, 0), (1, 9)), r'dilation \[1, 9\] does not fit a map of \[2, 8, 11, 9\]'),
        ((X, WEIGHT, BIAS, ONE, ONE, (2**62, 1)), 'does not fit a map'),
        ((X[:0], WEIGHT, BIAS, ONE, ONE, ONE), 'does not fit a map'),
        ((X, WEIGHT, BIAS[:2], ONE, ONE, ONE), r'bias.*\[2\]'),
    ],
)
def test_errors(args, message):
    with pytest.raises(RuntimeError, match=message):
        packed_conv2d(*args)


@pytest.mark.parametrize(
    'z',
    [torch.zeros(2, 6, 11, 8), torch.zeros(2, 6, 11, 9), torch.zeros(2, 6, 11, 9).double(), torch.zeros(6, 11, 9)],
    ids=['size', 'format', 'dtype', 'dimensions'],
)
def test_errors_of_addends(z):
    with pytest.raises(RuntimeError, match=r'a channels_last addend Float\[2, 6, 11, 9\], got'):
        packed_conv2d_add_relu_(z, X, WEIGHT, BIAS, ONE, ONE, ONE)


def test_an_addend_that_is_read_as_well():
    x = torch.randn(2, 8, 11, 9).contiguous(memory_format=torch.channels_last)
    weight = torch.randn(8, 8, 3, 3)
    expected = (F.conv2d(x, weight, padding=1) + x).relu()
    packed_conv2d_add_relu_(x, x, weight, None, ONE, ONE, ONE)
    torch.testing.assert_close(x, expected)


def test_a_trial_decides(monkeypatch):
    """An operator that computes something else is not used, nor one that refuses."""

    def refuse(*_, **__):
        raise RuntimeError('could not create a primitive')

    for stub in (refuse, lambda x, *_, relu=False: x * 0):
        packs.cache_clear()
        monkeypatch.setattr(fast_eval, 'packed_conv2d', stub)
        assert not packs(torch.float32)
    packs.cache_clear()


def test_the_first_call_draws_no_random_numbers():
    packs.cache_clear()
    torch.manual_seed(0)
    state = torch.get_rng_state()
    assert packs(torch.float32)
    assert torch.equal(state, torch.get_rng_state())
