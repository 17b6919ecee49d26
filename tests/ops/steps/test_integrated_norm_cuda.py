"""Integrated batch norm on a real GPU, against its reference: `pytest -m gpu`."""

import pytest
import torch

from icconv_mm.layers import IntegratedBatchNorm, integrated_batch_norm
from icconv_mm.ops import backends, use_backend

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not backends()['cuda'], reason=backends()['cuda'].reason),
]
TOLERANCE = {torch.float32: 1e-4, torch.float16: 5e-3, torch.bfloat16: 3e-2}
SIZES = [(100, 168), (50, 84), (25, 42), (13, 21), (7, 11)]


def step(norm, levels, relu, name):
    leaves = [level.clone(memory_format=torch.preserve_format).requires_grad_() for level in levels]
    with use_backend(name):
        out = integrated_batch_norm(leaves, norm, relu)
    grads = [torch.ones_like(x).cumsum(3).cos() for x in out]
    return [*out, *torch.autograd.grad(out, [*leaves, *norm.parameters()], grads)]


@pytest.mark.parametrize('dtype', TOLERANCE, ids=str)
@pytest.mark.parametrize('fmt', [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize('channels', [256, 33])
@pytest.mark.parametrize('relu', [False, True])
def test_equals_the_reference(dtype, fmt, channels, relu):
    norms = [IntegratedBatchNorm(channels).cuda() for _ in range(2)]
    for seed in range(3):
        generator = torch.Generator('cuda').manual_seed(seed)
        levels = [torch.randn(2, channels, *size, device='cuda', generator=generator) + seed for size in SIZES]
        levels = [level.to(dtype).contiguous(memory_format=fmt) for level in levels]
        results = [step(norm, levels, relu, name) for norm, name in zip(norms, ('cuda', 'reference'))]
        for one, other in zip(*results):
            assert one.stride() == other.stride() and one.dtype == other.dtype
            error = (one.float() - other.float()).abs().max() / other.float().abs().max().clamp(min=1e-3)
            assert error <= TOLERANCE[dtype]
    for one, other in zip(norms[0].buffers(), norms[1].buffers()):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_six_launches_and_the_same_bits():
    norm = IntegratedBatchNorm(64).cuda()
    levels = [torch.randn(2, 64, *size, device='cuda') for size in SIZES]
    first = step(norm, levels, True, 'cuda')
    for one, other in zip(step(norm, levels, True, 'cuda'), first):
        assert torch.equal(one, other)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        step(norm, levels, True, 'cuda')
    ours = [event for event in profile.events() if 'integrated_norm' in event.name]
    assert len(ours) == 6
