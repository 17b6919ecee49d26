"""The sum of two levels of a pyramid: the compiled kernel against torch's steps."""

import random

import pytest
import torch
import torch.nn.functional as F

from icconv_mm.ops import dispatch, explain, use_backend
from icconv_mm.ops.pyramid_sum import pyramid_sum

pytestmark = pytest.mark.skipif(
    dispatch.missing_kernel('pyramid_sum_compiled', 'cpu') is not None, reason='the library is without it'
)
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}  # of the maximum
FORMATS = [torch.contiguous_format, torch.channels_last]


def draw(seed: int, dtype: torch.dtype) -> list[torch.Tensor | None]:
    """A level, a coarser one, and perhaps a third map like the first; of any sizes and formats."""
    rng, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    batch, channels = rng.randint(1, 3), rng.choice([1, 3, 4, 8, 16, 33])
    height, width = rng.randint(1, 20), rng.randint(1, 20)
    halves = ((height + 1) // 2, (width + 1) // 2)
    coarser = halves if rng.random() < 0.7 else (rng.randint(1, 25), rng.randint(1, 25))
    formats = [rng.choice(FORMATS)] * 3 if rng.random() < 0.8 else rng.choices(FORMATS, k=3)
    maps = []
    for size, fmt in zip(((height, width), coarser, (height, width)), formats):
        drawn = torch.randn(batch, channels, *size, generator=generator, dtype=torch.float64)
        maps.append(drawn.to(dtype).contiguous(memory_format=fmt))
    return maps if rng.random() < 0.5 else [*maps[:2], None]


def formula(same, coarser, finer):
    same, coarser = same.double(), coarser.double()
    upsampled = F.interpolate(coarser, same.shape[-2:], mode='bilinear', align_corners=True)
    return same + upsampled + (0 if finer is None else finer.double())


@pytest.mark.parametrize('dtype', TOLERANCE, ids=str)
def test_is_the_formula(dtype):
    start = 150 * list(TOLERANCE).index(dtype)  # other shapes for each dtype
    for seed in range(start, start + 150):
        maps = draw(seed, dtype)
        got, want = torch.ops.icconv_mm.pyramid_sum_compiled(*maps), formula(*maps)
        assert got.dtype == dtype and got.stride() == maps[0].stride(), seed
        assert (got.double() - want).abs().max() <= TOLERANCE[dtype] * want.abs().max().clamp(min=1), seed


@pytest.mark.parametrize('fmt', FORMATS, ids=str)
@pytest.mark.parametrize('with_finer', [False, True])
def test_gradients_of_two_orders(fmt, with_finer):
    sizes = [(2, 4, 5, 4), (2, 4, 3, 2), (2, 4, 5, 4)][: 2 + with_finer]
    maps = [torch.randn(size, dtype=torch.float64).contiguous(memory_format=fmt).requires_grad_() for size in sizes]
    assert explain('pyramid_sum', *maps).chosen == 'cpu'
    assert torch.autograd.gradcheck(pyramid_sum, maps) and torch.autograd.gradgradcheck(pyramid_sum, maps)
    frozen = [maps[0].detach(), *maps[1:]]
    assert torch.autograd.gradcheck(pyramid_sum, frozen)


def test_parts_of_larger_maps():
    merged = torch.randn(2, 12, 7, 6)
    for fmt in FORMATS:
        same, finer = merged.contiguous(memory_format=fmt).split(6, 1)
        coarser = torch.randn(2, 12, 4, 3).contiguous(memory_format=fmt)[:, 6:]
        want = formula(same, coarser, finer).float()
        torch.testing.assert_close(pyramid_sum(same, coarser, finer), want)


def test_with_and_without_the_kernel_results_and_gradients_agree():
    maps = [torch.randn(2, 8, *size) for size in ((9, 7), (5, 4), (9, 7))]
    results = []
    for name in ('cpu', 'reference'):
        leaves = [tensor.clone().requires_grad_() for tensor in maps]
        with use_backend(name):
            out = pyramid_sum(*leaves)
            with torch.no_grad():
                assert torch.equal(pyramid_sum(*leaves), out)
        results.append([out, *torch.autograd.grad(out.cos().sum(), leaves)])
    for one, other in zip(*results):
        torch.testing.assert_close(one, other)


def test_transforms_see_torchs_steps():
    same, coarser = torch.randn(3, 1, 2, 4, 4), torch.randn(3, 1, 2, 2, 2)
    want = torch.stack([pyramid_sum(*pair) for pair in zip(same, coarser)])
    torch.testing.assert_close(torch.vmap(pyramid_sum)(same, coarser), want)
    tangents = torch.ones_like(same[0]), torch.ones_like(coarser[0])
    out, tangent = torch.func.jvp(pyramid_sum, (same[0], coarser[0]), tangents)
    torch.testing.assert_close(out, want[0])
    torch.testing.assert_close(tangent, torch.full_like(tangent, 2))


def test_schema_says_that_nothing_is_changed(opcheck):
    operator = torch.ops.icconv_mm.pyramid_sum_compiled.default
    for seed in range(4):
        opcheck(operator, draw(seed, torch.float32), test_utils='test_schema')


def test_what_is_refused():
    same, coarser = torch.randn(1, 2, 4, 4), torch.randn(1, 2, 2, 2)
    assert explain('pyramid_sum', same, coarser).chosen == 'cpu'
    lower = explain('pyramid_sum', same.bfloat16(), coarser.bfloat16())
    assert lower.chosen == 'reference' and 'in torch.bfloat16 the reference is faster' in lower['cpu'].reason
    mixed = explain('pyramid_sum', same, coarser.double())
    assert mixed.chosen == 'reference' and mixed['cpu'].reason.startswith('it needs maps of one dtype and device')
    assert pyramid_sum(same, coarser.double()).dtype == torch.float32
    for others in ([coarser[:, :1]], [coarser, same[..., :3]], [coarser[:, :, :0]]):
        with pytest.raises(RuntimeError, match='pyramid_sum: expected'):
            torch.ops.icconv_mm.pyramid_sum_compiled(same, *others, *[None] * (2 - len(others)))
