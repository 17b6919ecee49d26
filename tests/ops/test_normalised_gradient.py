"""The last step of integrated batch norm's backward pass: compiled kernel and reference against the formula."""

import pytest
import torch

from icconv_mm.ops import backends, use_backend
from icconv_mm.ops.normalised_gradient import normalised_gradient

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 2e-3}  # of the maximum
BACKENDS = ['reference', pytest.param('cpu', marks=pytest.mark.skipif(not backends()['cpu'], reason='not compiled'))]


def call(shape, dtype, generator):
    statistics = torch.float64 if dtype == torch.float64 else torch.float32
    maps = [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for _ in range(2)]
    return maps + [torch.randn(shape[1], generator=generator, dtype=torch.float64).to(statistics) for _ in range(4)]


def formula(grad, x, *channels):
    mean, scale, slope, shift = (each.double()[:, None, None] for each in channels)
    return scale * grad.double() + slope * (x.double() - mean) + shift


def has_half_batch_norm() -> bool:
    one = torch.ones(1)
    try:
        torch.batch_norm(torch.ones(1, 1, 2, 2).half(), one, one, one, one, False, 0.0, 0.0, False)
    except RuntimeError:
        return False
    return True


@pytest.mark.parametrize('name', BACKENDS)
@pytest.mark.parametrize('dtype', TOLERANCE, ids=str)
@pytest.mark.parametrize('shape', [(2, 3, 5, 7), (1, 64, 33, 41), (3, 1, 1, 1), (2, 5, 0, 4), (2, 1, 9, 9)], ids=str)
def test_is_the_formula(name, dtype, shape):
    if dtype == torch.float16 and name == 'reference' and not has_half_batch_norm():
        pytest.skip('this torch has no batch norm of float16 on the CPU')
    args = call(shape, dtype, torch.Generator().manual_seed(0))
    views = [each.transpose(2, 3).contiguous().transpose(2, 3) for each in args[:2]]
    formats = [args[:2], [each.contiguous(memory_format=torch.channels_last) for each in args[:2]], views]
    for grad, x in (*formats, (formats[0][0], formats[1][1])):
        with use_backend(name):
            out = normalised_gradient(grad, x, *args[2:])
        assert out.dtype == dtype
        if x.is_contiguous(memory_format=torch.channels_last):
            assert out.is_contiguous(memory_format=torch.channels_last)
        expected = formula(*args)
        assert out.shape == expected.shape
        if expected.numel():
            assert (out.double() - expected).abs().max() <= TOLERANCE[dtype] * expected.abs().max()


def test_a_large_mean_costs_no_digits():
    grad, x, *channels = call((1, 4, 30, 30), torch.float32, torch.Generator().manual_seed(0))
    channels[0] += 1e4
    x += 1e4
    got = normalised_gradient(grad, x, *channels)
    torch.testing.assert_close(got.double(), formula(grad, x, *channels), rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(not hasattr(torch.library, 'opcheck'), reason='torch.library.opcheck came with torch 2.4')
def test_opcheck():
    args = call((2, 3, 5, 7), torch.float32, torch.Generator().manual_seed(0))
    rotated = [each.transpose(2, 3).contiguous().transpose(2, 3) for each in args[:2]]
    for maps in (args[:2], [each.contiguous(memory_format=torch.channels_last) for each in args[:2]], rotated):
        torch.library.opcheck(
            torch.ops.icconv_mm.normalised_gradient.default,
            (*maps, *args[2:]),
            test_utils=('test_schema', 'test_faketensor'),
        )


def test_what_the_compiled_kernel_refuses(choice):
    grad, x, *channels = call((2, 3, 5, 7), torch.float32, torch.Generator().manual_seed(0))
    refusal = choice.operators['normalised_gradient']['cpu'].limits.refusal
    assert refusal(grad.half(), x, *channels) == 'it takes tensors of one dtype, got torch.float16 and torch.float32'
    assert 'on the CPU' in refusal(grad, x.to('meta'), *channels)
    if backends()['cpu']:
        with pytest.raises(RuntimeError, match='expected 3 channels'), use_backend('cpu'):
            normalised_gradient(grad, x, channels[0][:2], *channels[1:])
