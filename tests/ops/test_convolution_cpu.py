"""The compiled CPU kernels against the references in float64, for every instruction set that this processor has."""

import os
import random
from pathlib import Path

import pytest
import torch
from inception_calls import Call, per_run, random_pattern
from pyconv_calls import Call as Pyramid
from pyconv_calls import by_level

from icconv_mm.ops import backends, forget_packed_weights, inception_conv2d, pyconv2d, use_backend
from icconv_mm.ops import inception_conv as inception
from icconv_mm.ops import pyconv as pyramid
from icconv_mm.patterns import DilationPattern

# `make sanitize` must not pass because there was nothing to run
REQUIRED = bool(os.environ.get('ICCONV_MM_REQUIRE_CPU'))
pytestmark = pytest.mark.skipif(not backends()['cpu'] and not REQUIRED, reason=backends()['cpu'].reason)
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2}
OPS = torch.ops.icconv_mm
CAPABILITY = torch.backends.cpu.get_cpu_capability()
CPUINFO = Path('/proc/cpuinfo')
# what torch and the kernel found says which instruction sets there are
INSTRUCTIONS = ['portable'] + ['avx2'] * (CAPABILITY in ('AVX2', 'AVX512')) + ['avx512'] * (CAPABILITY == 'AVX512')
INSTRUCTIONS += ['avx512_bf16'] * (CPUINFO.exists() and 'avx512_bf16' in CPUINFO.read_text())
RUNS_OF_SEEDS = [range(start, start + 50) for start in range(0, 1000, 50)]
FAST = RUNS_OF_SEEDS[:4]


@pytest.fixture(params=INSTRUCTIONS)
def instructions(request, monkeypatch):
    monkeypatch.setenv('ICCONV_MM_CPU', request.param)
    return request.param


def stored(rng: random.Random, tensor: torch.Tensor) -> torch.Tensor:
    """The same values: contiguous, channels_last, or as a view with gaps."""
    kind = rng.randrange(4)
    if kind == 1:
        return tensor.contiguous(memory_format=torch.channels_last)
    if kind == 2:
        n, c, h, w = tensor.shape
        wide = tensor.new_full((n, c + 1, h + 2, 2 * w), float('nan'))
        wide[:, 1:, 1 : h + 1, ::2] = tensor
        return wide[:, 1:, 1 : h + 1, ::2]
    return tensor


def random_inception(seed: int) -> Call:
    rng, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    groups = rng.choice([1, 1, 1, 2, 3, 4, 8])
    inside = rng.choice([1, 2, 3, 4, 7, 8, 16, 20, 33, 64, 70] if groups < 4 else [1, 2, 3, 4, 5, 8, 16])
    out_channels = groups * rng.choice([1, 2, 3, 5, 8, 13, 17, 40] if groups < 4 else [1, 2, 3, 5])
    height, width = rng.choice([1, 2, 3, 5, 9, 13]), rng.choice([1, 2, 3, 4, 6, 11, 15, 19, 29])
    if seed % 25 == 0:  # several slices of channels, several columns of tiles
        groups, inside, out_channels, width = 1, 150, 70, 85
    x = torch.randn(rng.randint(0, 3), groups * inside, height, width, generator=generator, dtype=torch.float64)
    weight = torch.randn(out_channels, inside, 3, 3, generator=generator, dtype=torch.float64)
    bias = torch.randn(out_channels, generator=generator, dtype=torch.float64) if rng.random() < 0.5 else None
    pattern = random_pattern(rng, out_channels, rng.choice([1, 3, 9, 40]))
    return Call(stored(rng, x), stored(rng, weight), bias, pattern, rng.choice([1, 1, 2, 2, 3]), groups)


def random_pyramid(seed: int) -> Pyramid:
    rng, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    channels = rng.choice([1, 4, 6, 16, 24, 32, 64, 80])

    def tensor(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    x = tensor(rng.randint(0, 2), channels, rng.choice([1, 3, 8, 11]), rng.choice([1, 2, 5, 13, 17]))
    groups = [rng.choice([g for g in (1, 2, 3, 4, 8, 16) if channels % g == 0]) for _ in range(rng.randint(2, 4))]
    weights = []
    for group in groups:
        kernel = rng.choice([1, 3, 5, 7, 9]), rng.choice([1, 3, 5, 7, 9])
        weights.append(stored(rng, tensor(group * rng.choice([1, 2, 4, 7]), channels // group, *kernel)))
    bias = tensor(sum(weight.shape[0] for weight in weights)) if rng.random() < 0.5 else None
    return Pyramid(stored(rng, x), weights, bias, groups, rng.choice([1, 1, 2, 3]), rng.choice([1, 1, 2, 4]))


def assert_near(got: torch.Tensor, expected: torch.Tensor, tolerance: float, what: object):
    """Largest deviation relative to the largest value.

    Operands are of size 1, so a float32 product is rounded by 6e-8: a result of nothing but values below 0.01 is what
    cancellation has left of larger ones.
    """
    assert got.shape == expected.shape, what
    if expected.numel():
        scale = expected.abs().max().clamp(min=1e-2)
        assert ((got.double() - expected).abs().max() / scale).item() <= tolerance, what


def rounded(call, dtype):
    """The call in a dtype, and in float64 with the same, rounded, values."""
    return call.to(dtype), call.to(dtype).to(torch.float64)


def check_inception(seed: int, dtype: torch.dtype):
    call, exact = rounded(random_inception(seed), dtype)
    flat, rest = list(DilationPattern(call.pattern).flat), (call.stride, call.groups)
    expected = per_run(exact)
    args = call.x, call.weight, call.bias, flat, *rest
    assert_near(OPS.inception_conv2d_compiled(*args), expected, TOLERANCE[dtype], (seed, 'forward'))
    assert_near(OPS.inception_conv2d_relu_compiled(*args), expected.relu(), TOLERANCE[dtype], (seed, 'relu'))
    grad = stored(random.Random(seed), torch.randn(expected.shape).to(dtype))
    size = tuple(call.x.shape[2:])
    got = OPS.inception_conv2d_grad_input_compiled(grad, call.weight, size, flat, *rest)
    expected = inception.grad_input(grad.double(), exact.weight, size, flat, *rest)
    assert_near(got, expected, TOLERANCE[dtype], (seed, 'gradient of x'))
    got = OPS.inception_conv2d_grad_weight_compiled(grad, call.x, flat, *rest)
    expected = inception.grad_weight(grad.double(), exact.x, flat, *rest)
    assert_near(got, expected, TOLERANCE[dtype], (seed, 'gradient of the weight'))


def check_pyramid(seed: int, dtype: torch.dtype):
    call, exact = rounded(random_pyramid(seed), dtype)
    rest = call.groups, call.stride, call.dilation
    expected = by_level(exact)
    assert_near(OPS.pyconv2d_compiled(*call), expected, TOLERANCE[dtype], (seed, 'forward'))
    assert_near(OPS.pyconv2d_relu_compiled(*call), expected.relu(), TOLERANCE[dtype], (seed, 'relu'))
    grad = stored(random.Random(seed), torch.randn(expected.shape).to(dtype))
    size = tuple(call.x.shape[2:])
    got = OPS.pyconv2d_grad_input_compiled(grad, call.weights, size, *rest)
    expected = pyramid.grad_input(grad.double(), exact.weights, size, *rest)
    assert_near(got, expected, TOLERANCE[dtype], (seed, 'gradient of x'))
    shapes = [number for weight in call.weights for number in (weight.shape[0], *weight.shape[2:])]
    got = OPS.pyconv2d_grad_weight_compiled(grad, call.x, shapes, *rest)
    for one, other in zip(got, pyramid.grad_weight(grad.double(), exact.x, shapes, *rest), strict=True):
        assert_near(one, other, TOLERANCE[dtype], (seed, 'gradient of a weight'))


@pytest.mark.parametrize('check', [check_inception, check_pyramid])
@pytest.mark.parametrize('seeds', FAST[:1], ids=str)
def test_every_instruction_set(instructions, check, seeds):
    for seed in seeds:
        check(seed, torch.float32 if seed % 4 else torch.bfloat16)


@pytest.mark.parametrize('check', [check_inception, check_pyramid])
@pytest.mark.parametrize('seeds', FAST[1:], ids=str)
def test_random_shapes(check, seeds):
    for seed in seeds:
        check(seed, torch.float32 if seed % 4 else torch.bfloat16)


@pytest.mark.slow
@pytest.mark.parametrize('check', [check_inception, check_pyramid])
@pytest.mark.parametrize(
    ('name', 'seeds'),
    [(name, seeds) for name in INSTRUCTIONS for seeds in RUNS_OF_SEEDS[:: 1 if name == INSTRUCTIONS[-1] else 4]],
    ids=str,
)
def test_many_random_shapes(name, check, seeds, monkeypatch):
    """1000 shapes of each operator, every fourth run of them on each other instruction set; one, two, three threads."""
    monkeypatch.setenv('ICCONV_MM_CPU', name)
    threads = torch.get_num_threads()
    try:
        for seed in seeds:
            torch.set_num_threads(1 + seed % 3)
            check(seed, torch.float32 if seed % 4 else torch.bfloat16)
    finally:
        torch.set_num_threads(threads)


def test_the_result_does_not_depend_on_threads_or_luck():
    call, pyr = random_inception(25).to(torch.float32), random_pyramid(8).to(torch.float32)
    call = call._replace(x=torch.randn(2, *call.x.shape[1:]))
    flat = list(DilationPattern(call.pattern).flat)
    grad = torch.randn_like(per_run(call))
    shapes = [8, 3, 3, 16, 5, 5, 16, 9, 9]
    maps, grads = torch.randn(2, 32, 9, 20), torch.randn(2, 40, 9, 20)
    levels = [torch.randn(8, 32, 3, 3), torch.randn(16, 4, 5, 5), torch.randn(16, 2, 9, 9)]

    def results():
        return [
            OPS.inception_conv2d_compiled(call.x, call.weight, call.bias, flat, call.stride, 1),
            OPS.inception_conv2d_grad_input_compiled(grad, call.weight, call.x.shape[2:], flat, call.stride, 1),
            OPS.inception_conv2d_grad_weight_compiled(grad, call.x, flat, call.stride, 1),
            OPS.pyconv2d_compiled(*pyr),
            OPS.pyconv2d_grad_input_compiled(grads, levels, (9, 20), [1, 8, 16], 1, 1),
            *OPS.pyconv2d_grad_weight_compiled(grads, maps, shapes, [1, 8, 16], 1, 1),
        ]

    expected, threads = results(), torch.get_num_threads()
    try:
        for count in (1, 2, 3, 3, 2, 1):
            torch.set_num_threads(count)
            assert all(torch.equal(got, one) for got, one in zip(results(), expected))
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize(
    ('channels', 'height', 'width', 'layout', 'dtype'),
    [(256, 110, 30, torch.channels_last, torch.float32), (96, 40, 170, torch.contiguous_format, torch.bfloat16)],
    ids=['many rows', 'many columns'],
)
def test_large_maps(instructions, channels, height, width, layout, dtype):
    """Threads pack the rows that they read strip by strip: many strips of one chunk of columns; several chunks."""
    torch.manual_seed(0)
    x = torch.randn(2, channels, height, width).to(dtype, memory_format=layout)
    weight, threads = torch.randn(12, channels, 3, 3).to(dtype), torch.get_num_threads()
    pattern = [(4, 1, 1), (1, 1, 2), (2, 4, 3), (1, 2, 4), (4, 3, 1)]
    flat = list(DilationPattern(pattern).flat)
    groups = [1, 8, 32]
    levels = [weight, torch.randn(8, channels // 8, 7, 9).to(dtype), torch.randn(64, channels // 32, 5, 7).to(dtype)]
    shapes = [number for level in levels for number in (level.shape[0], *level.shape[2:])]
    try:
        for stride in (1, 2):
            call = Call(x.double(), weight.double(), None, pattern, stride, 1)
            pyr = Pyramid(x.double(), [level.double() for level in levels], None, groups, stride, 1)
            expected, sums = per_run(call), by_level(pyr)
            size, grad = tuple(x.shape[2:]), expected.to(dtype)
            exact = inception.grad_input(grad.double(), call.weight, size, flat, stride, 1)
            of_sums = sums.to(dtype)
            rest = groups, stride, 1
            exact_x = pyramid.grad_input(of_sums.double(), pyr.weights, size, *rest)
            exact_weights = pyramid.grad_weight(of_sums.double(), pyr.x, shapes, *rest)
            for count in (1, 3):
                torch.set_num_threads(count)
                got = OPS.inception_conv2d_compiled(x, weight, None, flat, stride, 1)
                assert_near(got, expected, TOLERANCE[dtype], (stride, count))
                got = OPS.pyconv2d_compiled(x, levels, None, *rest)
                assert_near(got, sums, TOLERANCE[dtype], (stride, count, 'pyramid'))
                got = OPS.inception_conv2d_grad_input_compiled(grad, weight, size, flat, stride, 1)
                assert_near(got, exact, TOLERANCE[dtype], (stride, count, 'gradient of x'))
                got = OPS.pyconv2d_grad_input_compiled(of_sums, levels, size, *rest)
                assert_near(got, exact_x, TOLERANCE[dtype], (stride, count, 'pyramid, gradient of x'))
                got = OPS.pyconv2d_grad_weight_compiled(of_sums, x, shapes, *rest)
                for one, other in zip(got, exact_weights, strict=True):
                    assert_near(one, other, TOLERANCE[dtype], (stride, count, 'pyramid, gradient of a weight'))
    finally:
        torch.set_num_threads(threads)


@pytest.mark.skipif(not hasattr(torch.utils, 'swap_tensors'), reason='swap_tensors came with torch 2.3')
def test_kept_weights_can_be_swapped():
    """What is kept holds on to memory and counters, not to tensors: torch refuses to swap tensors with references."""
    forget_packed_weights()
    pattern, x = [4, 1, 1, 2, 2, 2], torch.randn(1, 4, 5, 5)
    first, second = torch.randn(6, 4, 3, 3), torch.randn(6, 4, 3, 3)
    expected = [inception.forward(x.double(), weight.double(), None, pattern) for weight in (first, second)]
    for _ in range(3):
        OPS.inception_conv2d_compiled(x, first, None, pattern, 1, 1)
    torch.utils.swap_tensors(first, second)
    for _ in range(3):
        assert_near(OPS.inception_conv2d_compiled(x, first, None, pattern, 1, 1), expected[1], 1e-5, 'swapped')
        assert_near(OPS.inception_conv2d_compiled(x, second, None, pattern, 1, 1), expected[0], 1e-5, 'swapped')


def test_new_names_for_one_memory():
    """``.data`` has a counter of its own: what was kept for one such tensor is not used for the next."""
    forget_packed_weights()
    weight, x, pattern = torch.randn(6, 4, 3, 3), torch.randn(1, 4, 5, 5), [4, 1, 1, 2, 2, 2]
    for _ in range(20):
        alias = weight.data
        alias.add_(0.1)
        for _ in range(2):
            got = OPS.inception_conv2d_compiled(x, alias, None, pattern, 1, 1)
            assert_near(got, inception.forward(x.double(), weight.double(), None, pattern), 1e-5, 'alias')
    assert forget_packed_weights() <= 4


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16], ids=str)
def test_inputs_whose_channels_are_one(instructions, dtype):
    x, weight = torch.randn(1, 1, 9, 9).to(dtype).expand(1, 64, 9, 9), torch.randn(6, 64, 3, 3).to(dtype)
    out = OPS.inception_conv2d_compiled(x, weight, None, [4, 1, 1, 2, 2, 2], 1, 1)
    expected = inception.forward(x.double(), weight.double(), None, [4, 1, 1, 2, 2, 2], 1, 1)
    assert_near(out, expected, TOLERANCE[dtype], 'output')


def test_relu_keeps_nan():
    x = torch.full((1, 20, 6, 20), float('nan'))
    out = OPS.inception_conv2d_relu_compiled(x, torch.randn(40, 20, 3, 3), None, [20, 1, 1, 20, 2, 2], 1, 1)
    assert out.isnan().all()


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
@pytest.mark.parametrize('operator', ['inception', 'pyramid'])
def test_a_weight_that_is_not_finite(instructions, operator, value):
    """It spoils what it meets in the map. Of what it meets in the padding, torch's kernels make now this, now that."""

    def call(x, weights):
        if operator == 'inception':
            return inception_conv2d(x, weights[0], None, [(10, 1, 1), (10, 2, 3)])
        return pyconv2d(x, weights, None, [1, 4])

    shapes = [(20, 16, 3, 3)] if operator == 'inception' else [(10, 16, 3, 3), (8, 4, 5, 5)]
    weights = [torch.randn(shape) for shape in shapes]
    for weight in weights:
        weight[-2, 1, 0, 2] = value
    with use_backend('cpu'):
        spoilt = ~call(torch.rand(2, 16, 9, 11) + 0.1, weights).isfinite()
    with use_backend('reference'):
        meets = call(torch.ones(2, 16, 9, 11), [(~weight.isfinite()).float() for weight in weights]) > 0
    assert spoilt[meets].all() and 0 < meets.sum() < meets.numel()
    assert not spoilt[:, ~meets.any(3).any(2).any(0)].any()  # of other filters


def test_a_dilation_larger_than_the_map_needs_no_more_memory():
    far = 1 << 40
    call = Call(torch.randn(1, 4, 3, 5), torch.randn(6, 4, 3, 3), None, [(4, far, 1), (2, 1, far)], 1, 1)
    flat, near = [4, far, 1, 2, 1, far], [4, 3, 1, 2, 1, 5]  # as far as the map is wide
    out = OPS.inception_conv2d_compiled(*call[:3], flat, 1, 1)
    assert_near(out, inception.forward(call.x.double(), call.weight.double(), None, near, 1, 1), 1e-5, 'output')
    got = OPS.inception_conv2d_grad_input_compiled(out, call.weight, (3, 5), flat, 1, 1)
    expected = inception.grad_input(out.double(), call.weight.double(), (3, 5), near, 1, 1)
    assert_near(got, expected, 1e-5, 'gradient of x')
    got = OPS.inception_conv2d_grad_weight_compiled(out, call.x, flat, 1, 1)
    assert_near(got, inception.grad_weight(out.double(), call.x.double(), near, 1, 1), 1e-5, 'gradient of the weight')


@pytest.mark.parametrize('shape', [(0, 4, 5, 5), (2, 4, 1, 1), (1, 4, 1, 30)], ids=str)
@pytest.mark.parametrize('stride', [1, 2, 3])
def test_empty_and_tiny_maps(shape, stride):
    x = torch.randn(shape, requires_grad=True)
    weight = torch.randn(6, 4, 3, 3, requires_grad=True)
    pyramid_weights = [torch.randn(3, 4, 3, 3, requires_grad=True), torch.randn(4, 1, 9, 9, requires_grad=True)]
    for expected_backend in ('cpu', 'reference'):
        with use_backend(expected_backend):
            out = inception_conv2d(x, weight, None, [(4, 1, 1), (2, 7, 3)], stride)
            other = pyconv2d(x, pyramid_weights, None, [1, 4], stride)
            grads = torch.autograd.grad(out.sum() + other.sum(), [x, weight, *pyramid_weights])
        if expected_backend == 'cpu':
            got = [out, other, *grads]
    for one, expected in zip(got, [out, other, *grads], strict=True):
        torch.testing.assert_close(one, expected, rtol=1e-4, atol=1e-4)


def test_an_instruction_set_that_is_not_there(monkeypatch):
    monkeypatch.setenv('ICCONV_MM_CPU', 'mmx')
    with pytest.raises(RuntimeError, match='ICCONV_MM_CPU=mmx: expected avx512_bf16, avx512, avx2 or portable'):
        check_inception(1, torch.float32)


def test_shapes_are_checked_once_more():
    """Someone may call the compiled operators themselves."""
    x, weight = torch.randn(1, 4, 5, 5), torch.randn(6, 4, 3, 3)
    for pattern in ([5, 1, 1], [6, 0, 1], [7, 1, 1], [6, 1]):
        with pytest.raises(RuntimeError, match=r'pattern|run'):
            OPS.inception_conv2d_compiled(x, weight, None, pattern, 1, 1)
    for bias, stride, groups, message_of in (
        (torch.randn(5), 1, 1, r'the bias must be \[6\] on cpu, got \[5\] on cpu'),
        (None, 0, 1, r'stride must be in 1\.\.\d+ and groups positive, got 0 and 1'),
        (None, 1, 2, 'do not fit 2 groups'),
    ):
        with pytest.raises(RuntimeError, match=f'inception_conv2d: .*{message_of}'):
            OPS.inception_conv2d_compiled(x, weight, bias, [6, 1, 1], stride, groups)
    with pytest.raises(RuntimeError, match='must be alike, got Float on cpu and BFloat16 on cpu'):
        OPS.inception_conv2d_compiled(x, weight.bfloat16(), None, [6, 1, 1], 1, 1)
    with pytest.raises(RuntimeError, match='takes float32 or bfloat16, got Double'):
        OPS.inception_conv2d_compiled(x.double(), weight.double(), None, [6, 1, 1], 1, 1)
    with pytest.raises(RuntimeError, match='expected a gradient of'):
        OPS.inception_conv2d_grad_input_compiled(torch.randn(1, 6, 5, 4), weight, (5, 5), [6, 1, 1], 1, 1)
    with pytest.raises(RuntimeError, match='expected a gradient of'):
        OPS.inception_conv2d_grad_weight_compiled(torch.randn(2, 6, 5, 5), x, [6, 1, 1], 1, 1)
    with pytest.raises(RuntimeError, match='does not fit an input of 4 channels'):
        OPS.pyconv2d_compiled(x, [torch.randn(6, 4, 3, 3), torch.randn(6, 4, 3, 3)], None, [1, 2], 1, 1)
    with pytest.raises(RuntimeError, match='a weight'):
        OPS.pyconv2d_compiled(x, [weight.bfloat16()], None, [1], 1, 1)


def test_products_of_groups_do_not_overflow():
    # without filters any number of groups divides; 2^62 x 4 was 0
    grad, weight = torch.zeros(1, 0, 5, 5), torch.zeros(0, 4, 3, 3)
    with pytest.raises(RuntimeError, match='4611686018427387904 groups of 4 channels are more than'):
        OPS.inception_conv2d_grad_input_compiled(grad, weight, [5, 5], [], 1, 2**62)
    with pytest.raises(RuntimeError, match='4611686018427387904 groups of 4 channels are more than'):
        OPS.pyconv2d_grad_input_compiled(grad, [weight], [5, 5], [2**62], 1, 1)
