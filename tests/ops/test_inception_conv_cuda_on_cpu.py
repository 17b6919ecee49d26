"""CUDA kernels of the inception convolution by name on the CPU, where their code is the GPU's: plans, order of sums."""

import random

import pytest
import torch
from half import half_on_cpu
from inception_calls import Call, per_run, random_call, random_pattern, wide_call
from testing_kernels import require_testing_kernels

from icconv_mm.ops.dispatch import backend

if reason := backend.missing_library():
    pytest.skip(reason, allow_module_level=True)
require_testing_kernels()

by_name = torch.ops.icconv_mm.inception_conv2d_by
grad_input_by = torch.ops.icconv_mm.inception_conv2d_grad_input_by
grad_weight_by = torch.ops.icconv_mm.inception_conv2d_grad_weight_by

# largest deviation from the definition in float64, of the largest value: those of docs/backends.md
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2}
no_half = pytest.mark.skipif(not half_on_cpu(), reason='this torch has no product of float16 on the CPU')
MULTIPLIED = [pytest.param(dtype, marks=no_half if dtype == torch.float16 else ()) for dtype in TOLERANCE]


@pytest.fixture
def workspace():
    """Sets the limit of the workspace in bytes; the one before comes back."""
    before = torch.ops.icconv_mm.set_kn2row_workspace(1 << 28)
    yield torch.ops.icconv_mm.set_kn2row_workspace
    torch.ops.icconv_mm.set_kn2row_workspace(before)


def flat(call: Call) -> list[int]:
    return [number for run in call.pattern for number in run]


def at_strides_of_two(call: Call) -> Call:
    """What kn2row takes: strides 1 and 2."""
    return call._replace(stride=min(call.stride, 2))


def assert_near(got, expected, tolerance, note):
    assert got.shape == expected.shape, note
    if expected.numel():
        scale = expected.abs().max().clamp(min=1e-3)
        assert ((got.double() - expected).abs().max() / scale).item() <= tolerance, note


def check(call: Call, kernel: str, note):
    """Output, with and without ReLU, and both gradients."""
    exact, pattern = call.to(torch.float64), flat(call)
    x, weight = exact.x.clone().requires_grad_(), exact.weight.clone().requires_grad_()
    expected = per_run(exact._replace(x=x, weight=weight))
    settings = pattern, call.stride, call.groups
    relu = call.x.numel() % 2 == 0
    got = by_name(kernel, call.x, call.weight, call.bias, *settings, relu)
    tolerance = TOLERANCE[call.x.dtype]
    assert_near(got, expected.detach().relu() if relu else expected.detach(), tolerance, note)
    grad = torch.randn(expected.shape, generator=torch.Generator().manual_seed(7)).to(call.x.dtype)
    if got.is_contiguous(memory_format=torch.channels_last):
        grad = grad.to(memory_format=torch.channels_last)
    to_x, to_weight = torch.autograd.grad(expected, (x, weight), grad.double())
    size = list(call.x.shape[2:])
    assert_near(grad_input_by('kn2row', grad, call.weight, size, *settings), to_x, tolerance, note)
    assert_near(grad_weight_by('kn2row', grad, call.x, *settings), to_weight, tolerance, note)


@pytest.mark.parametrize('dtype', MULTIPLIED, ids=str)
@pytest.mark.parametrize('start', range(0, 120, 40))
def test_equals_the_definition(dtype, start, workspace):
    """480 small calls of any shape, the workspace from less than a row to everything at once."""
    start += 120 * list(TOLERANCE).index(dtype)  # other shapes for each dtype
    for seed in range(start, start + 40):
        workspace(random.Random(seed).choice([1, 3000, 30000, 1 << 28]))
        check(at_strides_of_two(random_call(seed)).to(dtype), 'kn2row', seed)


@pytest.mark.parametrize('dtype', MULTIPLIED, ids=str)
@pytest.mark.parametrize('kernel', ['kn2row', 'hybrid'])
def test_equals_the_definition_in_vectors(dtype, kernel, workspace):
    """Channels that mostly fill vectors, which are loaded at once where a run allows it."""
    start = 15 * list(TOLERANCE).index(dtype)
    for seed in range(start, start + 15):
        call = at_strides_of_two(wide_call(seed))
        if dtype == torch.bfloat16 and kernel == 'hybrid' and call.x.shape[-1] <= call.stride:
            continue  # torch's own convolution is wrong there: dense_convolution.is_trusted
        workspace(random.Random(seed).choice([100_000, 1 << 28]))
        check(call.to(dtype), kernel, seed)


def test_keeps_the_memory_format():
    for seed in range(20):
        call = at_strides_of_two(wide_call(seed)).to(torch.bfloat16)
        last = call.x.is_contiguous(memory_format=torch.channels_last) and not call.x.is_contiguous()
        out = by_name('kn2row', call.x, call.weight, None, flat(call), call.stride, call.groups, False)
        expected = torch.channels_last if last else torch.contiguous_format
        assert out.is_contiguous(memory_format=expected), seed


def test_is_the_same_bit_for_bit(workspace):
    workspace(50_000)
    call = at_strides_of_two(wide_call(4)).to(torch.float32)
    settings = flat(call), call.stride, call.groups
    first = by_name('kn2row', call.x, call.weight, call.bias, *settings, False)
    gradient = grad_weight_by('kn2row', first, call.x, *settings)
    for _ in range(3):
        assert torch.equal(by_name('kn2row', call.x, call.weight, call.bias, *settings, False), first)
        assert torch.equal(grad_weight_by('kn2row', first, call.x, *settings), gradient)


def test_sums_in_float16_that_cancel():
    """Products of single taps exceed what float16 holds, their sum does not."""
    x = torch.full((1, 8, 6, 6), 200.0, dtype=torch.float16)
    weight = torch.zeros(8, 8, 3, 3, dtype=torch.float16)
    weight[:, :, 1, 0], weight[:, :, 1, 1] = -60.0, 60.0  # 8 * 200 * 60 = 96000 each
    out = by_name('kn2row', x, weight, None, [4, 1, 1, 4, 2, 2], 1, 1, False)
    assert torch.isfinite(out[..., 2:]).all() and not out[..., 2:].any()
    assert torch.isinf(out[..., 0]).all()  # where the left tap is beyond the border


def test_dilations_beyond_the_map(workspace):
    workspace(1)
    x, weight = torch.randn(2, 16, 5, 7).double(), torch.randn(16, 16, 3, 3).double()
    for stride in (1, 2):
        check(Call(x, weight, None, [(8, 1, 1), (7, 10_000_000, 1), (1, 3, 40)], stride, 1), 'kn2row', stride)


def test_nan_stays_under_relu():
    x = torch.zeros(1, 8, 4, 4)
    x[0, 0, 1, 1] = torch.nan
    out = by_name('kn2row', x, torch.ones(8, 8, 3, 3), None, [4, 1, 1, 4, 2, 2], 1, 1, True)
    assert torch.isnan(out[0, :, 1, 1]).all()


def test_empty_batches_and_maps():
    weight, pattern = torch.randn(8, 8, 3, 3), [4, 1, 1, 4, 2, 2]
    for shape in ((0, 8, 5, 5), (2, 8, 0, 7), (2, 8, 3, 0)):
        x = torch.zeros(shape)
        out = by_name('kn2row', x, weight, None, pattern, 1, 1, False)
        assert out.shape == shape
        assert grad_input_by('kn2row', out, weight, list(shape[2:]), pattern, 1, 1).shape == shape
        assert not grad_weight_by('kn2row', out, x, pattern, 1, 1).any()


def test_says_what_it_does_not_take():
    x, weight, pattern = torch.randn(1, 8, 5, 5), torch.randn(8, 8, 3, 3), [4, 1, 1, 4, 2, 2]
    with pytest.raises(RuntimeError, match='strides 1 and 2, got 3'):
        by_name('kn2row', x, weight, None, pattern, 3, 1, False)
    with pytest.raises(RuntimeError, match="no kernel 'tiled'"):
        by_name('tiled', x, weight, None, pattern, 1, 1, False)
    with pytest.raises(RuntimeError, match='positive number of bytes, got 0'):
        torch.ops.icconv_mm.set_kn2row_workspace(0)


@pytest.mark.slow
@pytest.mark.parametrize('dtype', MULTIPLIED, ids=str)
@pytest.mark.parametrize('start', [0, 70])
def test_hybrid_equals_the_definition(dtype, start, workspace):
    """560 small calls, less those that torch's own convolution gets wrong."""
    start += 1000 + 140 * list(TOLERANCE).index(dtype)
    for seed in range(start, start + 70):
        call = at_strides_of_two(wide_call(seed, side=12))
        if dtype == torch.bfloat16 and call.x.shape[-1] <= call.stride:
            continue  # dense_convolution.is_trusted
        workspace(random.Random(seed).choice([100_000, 1 << 28]))
        check(call.to(dtype), 'hybrid', seed)


def narrow_call(seed: int, side: int = 36) -> Call:
    """64 channels, stride 1, maps of 1 to ``side``, a longest run of any length: what the fused kernels take."""
    rng = random.Random(seed)
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rng.randint(1, 2), 64, rng.randint(1, side), rng.randint(1, side), generator=generator)
    weight = torch.randn(64, 64, 3, 3, generator=generator)
    if seed % 3:
        x = x.to(memory_format=torch.channels_last)
    if seed % 4 == 0:
        weight = weight.to(memory_format=torch.channels_last)
    d_max, long = rng.choice([1, 2, 4, 4, 6, 16]), seed % 65
    before = rng.randint(0, 64 - long)  # so that the longest run starts anywhere
    pattern = [
        *random_pattern(rng, before, d_max),
        *[(long, rng.randint(1, d_max), rng.randint(1, d_max))] * (long > 0),
        *random_pattern(rng, 64 - long - before, d_max),
    ]
    bias = torch.randn(64, generator=generator).double() if seed % 2 else None
    return Call(x.double(), weight.double(), bias, pattern, 1, 1)


def check_fused(kernel: str, dtype: torch.dtype, seeds: range, side: int):
    for seed in seeds:
        call = narrow_call(seed, side).to(dtype)
        got = by_name(kernel, call.x, call.weight, call.bias, flat(call), 1, 1, seed % 5 == 0)
        expected = per_run(call.to(torch.float64))
        assert_near(got, expected.relu() if seed % 5 == 0 else expected, TOLERANCE[dtype], (seed, call.pattern))


# Of `fused`: tiles, patches, fragments and shifted additions; its threads alone are not here. Of `fused_wgmma`:
# descriptors, fragments and order, by the code that a GPU runs and the instructions' rules.
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize('kernel, count', [('fused', 20), ('fused_wgmma', 65)])
def test_fused_kernels_follow_the_definition(dtype, kernel, count):
    start = count * (dtype == torch.float16)
    check_fused(kernel, dtype, range(start, start + count), 36)


@pytest.mark.slow
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize('kernel', ['fused', 'fused_wgmma'])
@pytest.mark.parametrize('start', [200, 440])
def test_fused_kernels_follow_the_definition_on_small_maps(dtype, kernel, start):
    """480 more shapes for each, mostly of a single tile."""
    start += 120 * (dtype == torch.float16)
    check_fused(kernel, dtype, range(start, start + 120), 17)


def test_fused_says_what_it_does_not_take():
    x, weight = torch.randn(1, 32, 5, 5).half(), torch.randn(64, 32, 3, 3).half()
    for kernel in ('fused', 'fused_wgmma'):
        with pytest.raises(RuntimeError, match=r'take 64 channels, stride 1, .* got 32 -> 64 channels'):
            by_name(kernel, x, weight, None, [64, 1, 1], 1, 1, False)
