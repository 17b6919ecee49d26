"""The sum of two levels of a pyramid on a real GPU, against torch's steps: `pytest -m gpu`."""

import pytest
import torch

from icconv_mm.ops import backends, use_backend
from icconv_mm.ops.steps.pyramid_sum import pyramid_sum

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not backends()['cuda'], reason=backends()['cuda'].reason),
]
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}


@pytest.mark.parametrize('dtype', TOLERANCE, ids=str)
@pytest.mark.parametrize('fmt', [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize('channels', [256, 33])
@pytest.mark.parametrize('with_finer', [False, True])
def test_equals_torchs_steps(dtype, fmt, channels, with_finer):
    sizes = [(50, 83), (25, 42), (50, 83)][: 2 + with_finer]
    maps = [
        torch.randn(2, channels, *size, device='cuda').to(dtype).contiguous(memory_format=fmt).requires_grad_()
        for size in sizes
    ]
    results = []
    for name in ('cuda', 'reference'):
        with use_backend(name):
            out = pyramid_sum(*maps)
        results.append([out, *torch.autograd.grad(out, maps, torch.ones_like(out).cumsum(3).cos())])
    for one, other in zip(*results):
        assert one.dtype == dtype
        assert (one.double() - other.double()).abs().max() <= TOLERANCE[dtype] * other.double().abs().max()
