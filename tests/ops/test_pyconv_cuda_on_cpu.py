"""CUDA kernels of the pyramidal convolution by name on the CPU: filters filled with zeros, and the program of the
tensor-core kernel, followed fragment by fragment, or for the gradient of the weight thread by thread."""

import pytest
import torch
from pyconv_calls import Call, definition, random_call, vector_call
from testing_kernels import require_testing_kernels

from icconv_mm.ops.dispatch import backend

if reason := backend.missing_library():
    pytest.skip(reason, allow_module_level=True)
require_testing_kernels()

by_name = torch.ops.icconv_mm.pyconv2d_by
grad_input_by = torch.ops.icconv_mm.pyconv2d_grad_input_by
grad_weight_by = torch.ops.icconv_mm.pyconv2d_grad_weight_by
# errors of a sum, of the sum of its terms' absolute values: float16 and bfloat16 are added in float32
TOLERANCE = {torch.float64: 2e-15, torch.float32: 1e-6, torch.float16: 1e-6, torch.bfloat16: 1e-6}
# channels of each level, kernels, groups: stages 1 to 3 of a PyConvResNet, narrower
STAGES = [
    ((16, 16, 16, 16), (3, 5, 7, 9), (1, 4, 8, 16), 32),
    ((8, 8, 16), (3, 5, 7), (1, 4, 8), 32),
    ((40, 40), (3, 5), (1, 4), 80),
]


def assert_near(got, expected, terms, note):
    """Each number is within what its sum may lose, also where it cancels, and one rounding; ``terms``: the sums without
    signs."""
    assert got.shape == expected.shape, note
    info = torch.finfo(got.dtype)
    bound = TOLERANCE[got.dtype] * terms + info.eps * expected.abs() + info.tiny * info.eps  # the last: underflow
    assert bool(((got.double() - expected).abs() <= bound).all()), note


def check(call: Call, kernel: str, note, gradients=('input', 'weight')):
    settings = call.groups, call.stride, call.dilation
    relu = call.x.numel() % 2 == 0
    got = by_name(kernel, call.x, call.weights, call.bias, *settings, relu)
    grad = torch.randn(got.shape, generator=torch.Generator().manual_seed(7)).to(call.x.dtype)
    exact = call.to(torch.float64)
    out, to_x, *to_weights = definition(exact, grad.double())
    terms, terms_of_x, *terms_of_weights = definition(exact.absolute(), grad.double().abs())
    assert_near(got, out.relu() if relu else out, terms, note)
    if 'input' in gradients:
        size = list(call.x.shape[2:])
        assert_near(grad_input_by(kernel, grad, call.weights, size, *settings), to_x, terms_of_x, note)
    if 'weight' in gradients:
        shapes = [number for weight in call.weights for number in (weight.shape[0], *weight.shape[2:])]
        found = grad_weight_by(kernel, grad, call.x, shapes, *settings)
        for one, other, sums in zip(found, to_weights, terms_of_weights, strict=True):
            assert_near(one, other, sums, note)


@pytest.mark.parametrize('dtype', [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize('kernel', ['dense', 'merged'])
@pytest.mark.parametrize('start', range(0, 260, 65))
def test_filled_filters_equal_the_definition(dtype, kernel, start):
    """520 shapes for each kernel."""
    start += 520 * (kernel == 'merged') + 260 * (dtype == torch.float32)  # other shapes for each
    for seed in range(start, start + 65):
        check(random_call(seed, min_batch=1).to(dtype), kernel, seed)


def stage_call(stage: int, seed: int, stride: int, dilation: int = 1) -> Call:
    outputs, kernels, groups, channels = STAGES[stage]
    generator = torch.Generator().manual_seed(seed)

    def tensor(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    weights = [tensor(out, channels // group, side, side) / side for out, side, group in zip(outputs, kernels, groups)]
    bias = tensor(sum(outputs)) if seed % 2 else None
    return Call(tensor(1, channels, 6 + seed % 4, 5 + seed % 3), weights, bias, list(groups), stride, dilation)


@pytest.mark.parametrize('kernel', ['dense', 'merged'])
@pytest.mark.parametrize('stage', range(3))
def test_filled_filters_of_the_stages(kernel, stage):
    for seed, stride, dilation in ((0, 1, 1), (1, 2, 1), (2, 1, 2)):
        check(stage_call(stage, seed, stride, dilation), kernel, seed)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize('stage', range(3))
@pytest.mark.parametrize('stride', [1, 2])
def test_program_of_the_stages(dtype, stage, stride):
    for seed in range(2):
        check(stage_call(stage, seed, stride).to(dtype), 'tiled', seed)


def check_tiled(dtype: torch.dtype, seeds: range):
    for seed in seeds:
        call = vector_call(seed).to(dtype)
        check(call, 'tiled', seed, ['weight', 'input'][: 2 if call.stride <= 2 else 1])


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16], ids=str)
def test_tiled_equals_the_definition(dtype):
    start = 20 * (dtype == torch.float16)
    check_tiled(dtype, range(start, start + 20))


@pytest.mark.slow
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize('start', range(100, 720, 124))
def test_tiled_equals_the_definition_on_more_shapes(dtype, start):
    """620 shapes; one in five has a stride of 3, at which there is no gradient of the input."""
    start += 62 * (dtype == torch.float16)
    check_tiled(dtype, range(start, start + 62))


def test_tiled_gradient_of_the_weight_is_the_same_bit_for_bit():
    call = vector_call(3).to(torch.bfloat16)
    out = by_name('tiled', call.x, call.weights, None, call.groups, call.stride, call.dilation, False)
    shapes = [number for weight in call.weights for number in (weight.shape[0], *weight.shape[2:])]
    settings = shapes, call.groups, call.stride, call.dilation
    first = grad_weight_by('tiled', out, call.x, *settings)
    assert all(map(torch.equal, grad_weight_by('tiled', out, call.x, *settings), first))


def test_program_of_other_levels():
    """Levels that end within tiles and steps, rectangular kernels, more columns than a block has."""
    generator = torch.Generator().manual_seed(0)
    for outputs, shapes, groups, channels in (
        ((4, 12), ((3, 3), (5, 1)), (2, 4), 24),
        ((6, 74), ((1, 3), (3, 5)), (2, 1), 8),
        ((16,), ((3, 3),), (16,), 16),
    ):
        weights = [
            torch.randn(out, channels // group, *shape, generator=generator)
            for out, shape, group in zip(outputs, shapes, groups)
        ]
        x = torch.randn(1, channels, 5, 4, generator=generator)
        for stride in (1, 2):
            check(Call(x, weights, None, list(groups), stride, 2).to(torch.bfloat16), 'tiled', outputs)


def test_says_what_it_does_not_take():
    call = stage_call(0, 0, 1)
    settings = call.groups, 1, 1
    with pytest.raises(RuntimeError, match='float16 and bfloat16'):
        by_name('tiled', call.x, call.weights, None, *settings, False)
    grad, shapes = call.x.new_zeros(1, 64, *call.x.shape[2:]), [16, 3, 3, 16, 5, 5, 16, 7, 7, 16, 9, 9]
    with pytest.raises(RuntimeError, match='float16 and bfloat16'):
        grad_weight_by('tiled', grad, call.x, shapes, *settings)
    narrow = call.to(torch.bfloat16)
    grad = narrow.x.new_zeros(1, 64, *((size + 2) // 3 for size in call.x.shape[2:]))
    with pytest.raises(RuntimeError, match='at strides 1 and 2, got 3'):
        grad_input_by('tiled', grad, narrow.weights, list(call.x.shape[2:]), call.groups, 3, 1)
    with pytest.raises(RuntimeError, match="no kernel 'direct'"):
        by_name('direct', call.x, call.weights, None, *settings, False)
    with pytest.raises(RuntimeError, match='level 0'):
        by_name('merged', call.x, call.weights[:1], None, [3], 1, 1, False)
