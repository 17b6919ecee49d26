"""The CUDA kernels of integrated batch norm, run on the processor thread by thread, against batch norm."""

import random

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from icconv_mm.layers import IntegratedBatchNorm, integrated_batch_norm
from icconv_mm.ops import backend, explain, integrated_norm, use_backend

pytestmark = pytest.mark.skipif(
    backend.missing_kernel('integrated_norm_compiled', 'cpu') is not None, reason='the library is without it'
)
TOLERANCE = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}


def draw(seed: int, dtype: torch.dtype) -> tuple[list[torch.Tensor], list[torch.Tensor], dict]:
    """Levels of random sizes and format, gradients of the results, and settings."""
    rng, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    channels, batch = rng.choice([1, 3, 8, 31, 32, 33, 70]), rng.randint(1, 3)
    sides = [(rng.randint(1, 24), rng.randint(1, 24)) for _ in range(rng.randint(1, 6))] + [(2, 2)]
    fmt = rng.choice([torch.contiguous_format, torch.channels_last])

    def maps(scale, shift):
        made = [scale * torch.randn(batch, channels, *side, generator=generator) + shift for side in sides]
        return [each.to(dtype).contiguous(memory_format=fmt) for each in made]

    affine = rng.random() < 0.7
    settings = {
        'weight': torch.randn(channels, generator=generator) if affine else None,
        'bias': torch.randn(channels, generator=generator) if affine and rng.random() < 0.8 else None,
        'momentum': rng.choice([0.1, 1.0, 0.0]),
        'eps': rng.choice([1e-5, 1e-3]),
        'relu': rng.random() < 0.5,
        'tracked': rng.random() < 0.7,
    }
    return maps(rng.choice([0.5, 3]), rng.choice([0, 2])), maps(1, 0), settings


def run(levels, grads, *, weight, bias, momentum, eps, relu, tracked):
    """Results, gradients of levels, weight and bias, and statistics, of the kernels."""
    channels = levels[0].shape[1]
    statistics = [torch.zeros(channels), torch.ones(channels), torch.tensor(3)] if tracked else [None] * 3
    ops = torch.ops.icconv_mm
    out, mean, inverse = ops.integrated_norm_compiled(levels, weight, bias, *statistics, momentum, eps, relu)
    to_levels, to_weight, to_bias = ops.integrated_norm_grad_compiled(grads, levels, weight, bias, mean, inverse, relu)
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


@pytest.mark.parametrize('dtype', TOLERANCE, ids=str)
@pytest.mark.parametrize('start', range(0, 180, 60))
def test_is_batch_norm_over_all_levels(dtype, start):
    for seed in range(start, start + 60):
        levels, grads, settings = draw(seed, dtype)
        got, want = run(levels, grads, **settings), expected(levels, grads, **settings)
        for name, ours, theirs in zip(('out', 'grad_x'), got, want):
            for one, other, level in zip(ours, theirs, levels, strict=True):
                assert one.dtype == dtype and one.stride() == level.stride(), (seed, name)
                assert_close(one, other, TOLERANCE[dtype] * (4 if name == 'grad_x' else 1), (seed, name, settings))
        for name, one, other in zip(('weight', 'bias'), got[2:4], want[2:4]):
            assert_close(one, other, max(TOLERANCE[dtype], 1e-4), (seed, name))
        for one, other in zip(got[4], want[4]):
            if one is not None:
                torch.testing.assert_close(one.double(), other.double(), rtol=1e-4, atol=1e-4)


def test_many_chunks_and_a_mean_far_from_zero():
    """Sums of squares would lose all digits of the variance."""
    generator = torch.Generator().manual_seed(0)
    levels = [1e3 + torch.randn(2, 5, side, side + 1, generator=generator) for side in (90, 33, 7)]
    grads = [torch.randn(level.shape, generator=generator) for level in levels]
    settings = dict(weight=None, bias=None, momentum=0.1, eps=1e-5, relu=False, tracked=True)
    got, want = run(levels, grads, **settings), expected(levels, grads, **settings)
    for ours, theirs in zip(got[:2], want[:2]):
        for one, other in zip(ours, theirs):
            torch.testing.assert_close(one.double(), other, rtol=0, atol=2e-3)
    torch.testing.assert_close(got[4][1].double(), want[4][1], rtol=1e-4, atol=0)


def test_other_strides_and_values_that_are_no_numbers():
    levels, grads, settings = draw(3, torch.float32)
    turned = [level.transpose(2, 3).contiguous().transpose(2, 3) for level in levels]
    for one, other in zip(run(levels, grads, **settings)[1], run(turned, grads, **settings)[1]):
        torch.testing.assert_close(one, other)
    levels[0][0, 0, 0, 0] = float('nan')
    for relu in (False, True):
        assert all(out[:, 0].isnan().all() for out in run(levels, grads, **{**settings, 'relu': relu})[0])


@pytest.mark.parametrize('momentum', [0.1, None])
@pytest.mark.parametrize('relu', [False, True])
@pytest.mark.parametrize('affine', [False, True])
def test_in_the_layer(choice, momentum, relu, affine):
    """As a GPU would use it: results, gradients, running statistics and their count over several batches."""
    ours, theirs = (IntegratedBatchNorm(6, momentum=momentum, affine=affine) for _ in range(2))
    for step in range(3):
        levels = [torch.randn(2, 6, side, 5) + step for side in (9, 4, 1)]
        results = []
        for norm, name in ((ours, 'cpu'), (theirs, 'reference')):
            choice.offer('integrated_norm', integrated_norm.compiled_run)
            leaves = [level.clone().requires_grad_() for level in levels]
            with use_backend(name):
                out = integrated_batch_norm(leaves, norm, relu)
            sum((x * x.cos()).sum() for x in out).backward()
            results.append([*out, *(leaf.grad for leaf in leaves)])
        for one, other in zip(*results):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    for one, other in zip(ours.state_dict().values(), theirs.state_dict().values()):
        torch.testing.assert_close(one, other)
    for one, other in zip(ours.parameters(), theirs.parameters()):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-3)


def test_in_evaluation_mode_without_statistics_it_tracks_none(choice):
    choice.offer('integrated_norm', integrated_norm.compiled_run)
    norm, reference = (IntegratedBatchNorm(4, track_running_stats=False).eval() for _ in range(2))
    levels = [torch.randn(2, 4, 5, 5), torch.randn(2, 4, 3, 3)]
    with use_backend('reference'):
        expected_levels = reference(levels)
    for one, other in zip(norm(levels), expected_levels):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_it_is_not_chosen_before_it_is_proven_and_refuses_in_sentences(choice):
    levels = [torch.randn(2, 4, 5, 5)]
    norm = nn.BatchNorm2d(4)
    args = (
        levels,
        norm.weight,
        norm.bias,
        norm.running_mean,
        norm.running_var,
        norm.num_batches_tracked,
        0.1,
        1e-5,
        True,
    )
    assert explain('integrated_norm', *args).chosen == 'reference' and not integrated_norm.PROVEN
    with (
        use_backend('cuda'),
        pytest.raises(RuntimeError, match=r'integrated_norm: .* it takes tensors on a CUDA device'),
    ):
        integrated_batch_norm(levels, norm)
    with pytest.raises(RuntimeError, match=r'takes levels .* alike that are not empty'):
        torch.ops.icconv_mm.integrated_norm_compiled([levels[0], levels[0][:, :2]], *args[1:])
    with pytest.raises(RuntimeError, match='takes 4 float32 parameters'):
        torch.ops.icconv_mm.integrated_norm_compiled(levels, norm.weight[:2], *args[2:])
