"""The kernels of integrated batch norm against batch norm over all levels."""

import random

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from icconv_mm.layers import integrated_batch_norm
from icconv_mm.ops import dispatch, explain, use_backend
from icconv_mm.ops.integrated_norm import integrated_norm

pytestmark = pytest.mark.skipif(
    dispatch.missing_kernel('integrated_norm_compiled', 'cpu') is not None, reason='the library is without it'
)
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}
INSTRUCTIONS = ['avx512', 'avx2', 'portable']


def statistics_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def draw(seed: int, dtype: torch.dtype) -> tuple[list[torch.Tensor], list[torch.Tensor], dict]:
    """Levels of random sizes and format, gradients of the results, and settings."""
    rng, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    channels, batch = rng.choice([1, 3, 8, 31, 32, 33, 70]), rng.randint(1, 3)
    sides = [(rng.randint(1, 24), rng.randint(1, 24)) for _ in range(rng.randint(1, 6))] + [(2, 2)]
    fmt = rng.choice([torch.contiguous_format, torch.channels_last])

    def maps(scale, shift):
        drawn = [torch.randn(batch, channels, *side, generator=generator, dtype=torch.float64) for side in sides]
        scaled = [scale * tensor + shift for tensor in drawn]
        return [tensor.to(dtype).contiguous(memory_format=fmt) for tensor in scaled]

    affine, parameters = rng.random() < 0.7, {'generator': generator, 'dtype': statistics_dtype(dtype)}
    settings = {
        'weight': torch.randn(channels, **parameters) if affine else None,
        'bias': torch.randn(channels, **parameters) if affine and rng.random() < 0.8 else None,
        'momentum': rng.choice([0.1, 1.0, 0.0]),
        'eps': rng.choice([1e-5, 1e-3]),
        'relu': rng.random() < 0.5,
        'tracked': rng.random() < 0.7,
    }
    return maps(rng.choice([0.5, 3]), rng.choice([0, 2])), maps(1, 0), settings


def run(levels, grads, *, weight, bias, momentum, eps, relu, tracked):
    """Results, gradients of levels, weight and bias, and statistics, of the kernels."""
    channels, dtype = levels[0].shape[1], statistics_dtype(levels[0].dtype)
    fresh = [torch.zeros(channels, dtype=dtype), torch.ones(channels, dtype=dtype), torch.tensor(3)]
    statistics = fresh if tracked else [None] * 3
    ops = torch.ops.icconv_mm
    forward, backward = ops.integrated_norm_compiled, ops.integrated_norm_grad_compiled
    out, mean, inverse = forward(levels, weight, bias, *statistics, momentum, eps, relu)
    to_levels, to_weight, to_bias = backward(grads, levels, weight, bias, mean, inverse, relu)
    return out, to_levels, to_weight, to_bias, statistics


def expected(levels, grads, *, weight, bias, momentum, eps, relu, tracked):
    """The same of ``F.batch_norm`` over all pixels, in float64."""
    channels = levels[0].shape[1]
    leaves = [level.double().requires_grad_() for level in levels]
    scale = (torch.ones(channels) if weight is None else weight).double().requires_grad_()
    shift = (torch.zeros(channels) if bias is None else bias).double().requires_grad_()
    statistics = [torch.zeros(channels).double(), torch.ones(channels).double()] if tracked else [None] * 2
    flat = torch.cat([level.flatten(2).permute(1, 0, 2).flatten(1) for level in leaves], 1)
    y = F.batch_norm(flat.T, *statistics, scale, shift, True, momentum, eps).T
    y = y.relu() if relu else y
    out = []
    for level, part in zip(leaves, y.split([level.numel() // channels for level in leaves], 1)):
        out.append(part.view(channels, len(level), *level.shape[2:]).transpose(0, 1))
    *to_levels, to_weight, to_bias = torch.autograd.grad(out, [*leaves, scale, shift], [g.double() for g in grads])
    return out, to_levels, to_weight, to_bias, statistics + [torch.tensor(4)] if tracked else [None] * 3


def assert_close(got, want, tolerance, note):
    error = (got.double() - want).abs().max() / want.abs().max().clamp(min=1)
    assert error <= tolerance, (note, error.item())


def check(seeds, dtype):
    for seed in seeds:
        levels, grads, settings = draw(seed, dtype)
        # at the corner of ReLU rounding decides whether a gradient passes: none is asked of it
        before_relu = expected(levels, grads, **{**settings, 'relu': False})[0]
        grads = [grad.masked_fill(y.abs() < 1e-5, 0) for grad, y in zip(grads, before_relu)]
        got, want = run(levels, grads, **settings), expected(levels, grads, **settings)
        for name, ours, theirs in zip(('out', 'grad_x'), got, want):
            for one, other, level in zip(ours, theirs, levels, strict=True):
                assert one.dtype == dtype and one.stride() == level.stride(), (seed, name)
                assert_close(one, other, TOLERANCE[dtype] * (4 if name == 'grad_x' else 1), (seed, name, settings))
        exact = 1e-12 if dtype == torch.float64 else 1e-4
        for name, one, other in zip(('weight', 'bias'), got[2:4], want[2:4]):
            assert_close(one, other, max(TOLERANCE[dtype], exact), (seed, name))
        for one, other in zip(got[4], want[4]):
            if one is not None:
                torch.testing.assert_close(one.double(), other.double(), rtol=exact, atol=exact)


@pytest.mark.parametrize('dtype', TOLERANCE, ids=str)
@pytest.mark.parametrize('start', range(0, 180, 60))
def test_is_batch_norm_over_all_levels(dtype, start):
    check(range(start, start + 60), dtype)


@pytest.mark.parametrize('dtype', TOLERANCE, ids=str)
@pytest.mark.parametrize('instructions', INSTRUCTIONS)
def test_every_instruction_set(monkeypatch, instructions, dtype):
    monkeypatch.setenv('ICCONV_MM_CPU', instructions)
    try:
        check(range(500, 530), dtype)
    except RuntimeError as error:
        assert 'one that this processor has' in str(error)
        pytest.skip(f'this processor has no {instructions}')


def test_many_chunks_and_a_mean_far_from_zero():
    """Sums of squares would lose all digits of the variance."""
    generator = torch.Generator().manual_seed(0)
    for fmt in (torch.contiguous_format, torch.channels_last):
        sides, levels = (150, 33, 7), []
        for side in sides:
            x = 1e3 + torch.randn(2, 5, side, side + 1, generator=generator)
            levels.append(x.contiguous(memory_format=fmt))
        grads = [torch.randn(level.shape, generator=generator) for level in levels]
        settings = dict(weight=None, bias=None, momentum=0.1, eps=1e-5, relu=False, tracked=True)
        got, want = run(levels, grads, **settings), expected(levels, grads, **settings)
        for ours, theirs in zip(got[:2], want[:2]):
            for one, other in zip(ours, theirs):
                torch.testing.assert_close(one.double(), other, rtol=0, atol=2e-3)
        torch.testing.assert_close(got[4][1].double(), want[4][1], rtol=1e-4, atol=0)


@pytest.mark.parametrize('fmt', [torch.contiguous_format, torch.channels_last], ids=str)
def test_parts_of_larger_maps_and_mixed_formats(fmt):
    """Channels of a merged convolution's output, read where they lie; results are dense."""
    generator = torch.Generator().manual_seed(0)
    merged = [
        torch.randn(2, 14, *side, generator=generator).contiguous(memory_format=fmt)
        for side in ((9, 8), (4, 1), (1, 4), (1, 1))
    ]
    settings = dict(weight=None, bias=None, momentum=0.1, eps=1e-5, relu=True, tracked=True)
    for part in (slice(0, 7), slice(7, 14)):
        levels = [tensor[:, part] for tensor in merged]
        grads = [torch.randn(level.shape, generator=generator) for level in levels]
        dense = [level.contiguous() for level in levels]
        mixed = [
            tensor.contiguous(memory_format=torch.channels_last) if i % 2 else tensor for i, tensor in enumerate(dense)
        ]
        want = run(dense, grads, **settings)
        for given in (levels, mixed):
            got = run(given, grads, **settings)
            for one, other in zip([*got[0], *got[1], *got[2:4]], [*want[0], *want[1], *want[2:4]], strict=True):
                torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_the_number_of_threads_changes_no_bit():
    levels = [torch.randn(2, 40, 50, side) for side in (60, 30, 7)]
    settings = dict(weight=None, bias=None, momentum=0.1, eps=1e-5, relu=True, tracked=True)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            results.append(run(levels, levels, **settings))
    finally:
        torch.set_num_threads(before)
    for one, other in zip(*([*result[0], *result[1], *result[2:4], *result[4]] for result in results), strict=True):
        assert torch.equal(one, other)


def test_other_strides_and_values_that_are_no_numbers():
    levels, grads, settings = draw(3, torch.float32)
    transposed = [level.transpose(2, 3).contiguous().transpose(2, 3) for level in levels]
    for one, other in zip(run(levels, grads, **settings)[1], run(transposed, grads, **settings)[1]):
        torch.testing.assert_close(one, other)
    levels[0][0, 0, 0, 0] = float('nan')
    for relu in (False, True):
        assert all(out[:, 0].isnan().all() for out in run(levels, grads, **{**settings, 'relu': relu})[0])


@pytest.mark.parametrize('relu', [False, True])
def test_gradcheck(relu):
    """Also where only some inputs need a gradient."""
    generator = torch.Generator().manual_seed(1)
    kwargs = dict(generator=generator, dtype=torch.float64)
    levels = [torch.randn(2, 3, *side, **kwargs).requires_grad_() for side in ((3, 4), (2, 2), (1, 1))]
    weight, bias = (torch.randn(3, **kwargs).requires_grad_() for _ in range(2))

    def call(weight, bias, *levels):
        with use_backend('cpu'):
            return tuple(integrated_norm(levels, weight, bias, None, None, None, 0.1, 1e-5, relu))

    for frozen in ((), (weight,), (bias, levels[1]), levels):
        inputs = [
            tensor.detach() if any(tensor is one for one in frozen) else tensor for tensor in (weight, bias, *levels)
        ]
        assert torch.autograd.gradcheck(call, inputs)


def test_schemas_say_what_is_changed(opcheck):
    levels, grads, settings = draw(4, torch.float32)
    channels = levels[0].shape[1]
    statistics = torch.zeros(channels), torch.ones(channels), torch.tensor(0)
    ops, args = torch.ops.icconv_mm, (settings['weight'], settings['bias'])
    forward, backward = ops.integrated_norm_compiled.default, ops.integrated_norm_grad_compiled.default
    opcheck(forward, (levels, *args, *statistics, 0.1, 1e-5, True), test_utils='test_schema')
    _, mean, inverse = forward(levels, *args, None, None, None, 0.1, 1e-5, True)
    opcheck(backward, (grads, levels, *args, mean, inverse, True), test_utils='test_schema')


def call_arguments(levels, norm):
    statistics = norm.running_mean, norm.running_var, norm.num_batches_tracked
    return levels, norm.weight, norm.bias, *statistics, 0.1, 1e-5, True


def test_the_cpus_serves_every_floating_dtype():
    for dtype in TOLERANCE:
        norm = nn.BatchNorm2d(4).to(statistics_dtype(dtype))
        levels = [torch.randn(2, 4, 5, 5).to(dtype)]
        assert explain('integrated_norm', *call_arguments(levels, norm)).chosen == 'cpu'
        answer = explain('integrated_norm', *call_arguments(levels, norm.bfloat16()))
        assert answer.chosen == 'reference' and 'parameters and statistics, got torch.bfloat16' in answer['cpu'].reason
    answer = explain('integrated_norm', *call_arguments([*levels, levels[0].double()], norm))
    assert answer['cpu'].reason.startswith('it needs levels of one dtype and device')
    assert explain('integrated_norm', *call_arguments([levels[0][:0]], norm)).chosen == 'reference'
    with pytest.raises(TypeError, match="unexpected keyword argument 'group'"):  # such a call reaches no backend
        explain('integrated_norm', *call_arguments(levels, norm), group=None)


def test_the_kernel_checks_shapes_itself():
    levels, norm = [torch.randn(2, 4, 5, 5)], nn.BatchNorm2d(4)
    args, forward = call_arguments(levels, norm), torch.ops.icconv_mm.integrated_norm_compiled
    with pytest.raises(RuntimeError, match=r'takes levels .* alike that are not empty'):
        forward([levels[0], levels[0][:, :2]], *args[1:])
    with pytest.raises(RuntimeError, match=r'takes 4 .*parameters'):
        forward(levels, norm.weight[:2], *args[2:])


def test_in_use_on_a_backend_without_a_kernel_it_is_the_reference():
    levels, norm = [torch.randn(2, 4, 5, 5)], nn.BatchNorm2d(4)
    with use_backend('cuda'):
        assert explain('integrated_norm', *call_arguments(levels, norm)).chosen == 'reference'
        (got,) = integrated_batch_norm(levels, norm)
    torch.testing.assert_close(got, norm(levels[0]))


@pytest.mark.skipif(not hasattr(torch.compiler, 'is_exporting'), reason='this torch does not tell an export')
@pytest.mark.parametrize('strict', [False, True])
@pytest.mark.parametrize('relu', [False, True])
def test_an_exported_program_trains(strict, relu):
    """Outputs, gradients and running statistics are those of the module; two steps."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)

        def forward(self, fine, coarse):
            return integrated_batch_norm([self.conv(fine), self.conv(coarse)], self.norm, relu)

    torch.manual_seed(0)
    net, maps = Net().double(), (3 + torch.randn(2, 4, 8, 9).double(), torch.randn(2, 4, 4, 5).double())
    program = torch.export.export(net, maps, strict=strict).module()
    for _ in range(2):
        outputs, expected = program(*maps), net(*maps)
        torch.testing.assert_close(outputs, expected)
        for levels in (outputs, expected):
            sum((level.pow(3) * (1 + number)).sum() for number, level in enumerate(levels)).backward()
    assert len(dict(program.named_parameters())) == 4
    for name, parameter in net.named_parameters():
        torch.testing.assert_close(program.get_parameter(name).grad, parameter.grad)
    for name, buffer in net.named_buffers():
        torch.testing.assert_close(program.get_buffer(name), buffer)
