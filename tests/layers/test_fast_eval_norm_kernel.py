"""Batch norm, sum and ReLU in place: the compiled kernel against torch's own steps."""

import pytest
import torch
from torch import nn
from torch.nn.functional import batch_norm, relu

from icconv_mm.layers.fast_eval import has_batch_norm_kernel
from icconv_mm.ops import backends

pytestmark = pytest.mark.skipif(not backends()['cpu'], reason='not compiled')

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 2e-3}  # of the maximum
FORMATS = (torch.contiguous_format, torch.channels_last)


def call(shape, dtype, memory_format=torch.contiguous_format, statistics=None, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x, shortcut = (torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for _ in range(2))
    weight, bias, mean = (torch.randn(shape[1], generator=generator, dtype=torch.float64) for _ in range(3))
    var = torch.rand(shape[1], generator=generator, dtype=torch.float64)
    maps = (tensor.contiguous(memory_format=memory_format) for tensor in (x, shortcut))
    exact = torch.float64 if dtype == torch.float64 else torch.float32
    return *maps, [tensor.to(statistics or exact) for tensor in (weight, bias, mean, var)]


def batch_norm_relu_(x, weight, bias, mean, var, eps, shortcut=None, relu=False):
    torch.ops.icconv_mm.batch_norm_relu__compiled(x, weight, bias, mean, var, eps, shortcut, relu)


def norm_of(channels):
    norm = nn.BatchNorm2d(len(channels[0])).eval().requires_grad_(False)
    norm.weight.data, norm.bias.data, norm.running_mean, norm.running_var = channels
    return norm


def steps(x, channels, eps, shortcut, with_relu):
    weight, bias, mean, var = (tensor.double() for tensor in channels)
    y = batch_norm(x.double(), mean, var, weight, bias, eps=eps)
    y = y if shortcut is None else y + shortcut.double()
    return relu(y) if with_relu else y


@pytest.mark.parametrize('dtype', TOLERANCE, ids=str)
@pytest.mark.parametrize('memory_format', FORMATS, ids=str)
def test_is_torch_steps(dtype, memory_format):
    for shape in ((2, 3, 5, 7), (1, 64, 33, 41), (3, 1, 1, 1), (2, 5, 0, 4), (2, 17, 9, 9), (0, 4, 3, 3)):
        for added in (False, True):
            for with_relu in (False, True):
                x, shortcut, channels = call(shape, dtype, memory_format)
                shortcut = shortcut if added else None
                expected = steps(x, channels, 1e-3, shortcut, with_relu)
                batch_norm_relu_(x, *channels, 1e-3, shortcut, with_relu)
                assert x.dtype == dtype
                if expected.numel():
                    assert (x.double() - expected).abs().max() <= TOLERANCE[dtype] * expected.abs().max()


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize('memory_format', FORMATS, ids=str)
def test_parameters_of_the_dtype_of_the_map(dtype, memory_format):
    """As in a model that was converted as a whole: what they are is exact, and the sum is rounded once."""
    x, shortcut, channels = call((2, 37, 9, 7), dtype, memory_format, dtype)
    expected = steps(x, channels, 1e-3, shortcut, True)
    assert has_batch_norm_kernel(x, norm_of(channels), shortcut)
    batch_norm_relu_(x, *channels, 1e-3, shortcut, True)
    assert (x.double() - expected).abs().max() <= TOLERANCE[dtype] * expected.abs().max()


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_every_instruction_set(dtype, monkeypatch):
    for name in ('avx512', 'avx2', 'portable'):
        x, shortcut, channels = call((1, 37, 9, 7), dtype, torch.channels_last)
        expected = steps(x, channels, 1e-3, shortcut, True)
        monkeypatch.setenv('ICCONV_MM_CPU', name)
        try:
            batch_norm_relu_(x, *channels, 1e-3, shortcut, True)
        except RuntimeError as error:
            assert 'one that this processor has' in str(error)
            continue
        assert (x.double() - expected).abs().max() <= TOLERANCE[dtype] * expected.abs().max()


def test_a_shortcut_of_another_format_is_added_where_it_belongs():
    x, shortcut, channels = call((2, 8, 6, 5), torch.float32)
    expected = steps(x, channels, 1e-5, shortcut, False)
    for one in FORMATS:
        for other in FORMATS:
            y = x.clone(memory_format=one)
            batch_norm_relu_(y, *channels, 1e-5, shortcut.contiguous(memory_format=other))
            torch.testing.assert_close(y.double(), expected, rtol=1e-5, atol=1e-5)


def test_values_that_are_none_stay_so():
    x, _, channels = call((1, 2, 2, 2), torch.float32)
    x[0, 0, 0, 0], x[0, 1, 1, 1] = float('nan'), float('inf')
    expected = steps(x, channels, 1e-5, None, True).float()
    batch_norm_relu_(x, *channels, 1e-5, None, True)
    torch.testing.assert_close(x, expected, equal_nan=True)


def test_maps_that_the_kernel_does_not_take():
    x, shortcut, channels = call((1, 2, 3, 3), torch.float32)
    norm = norm_of(channels)
    assert has_batch_norm_kernel(x, norm, shortcut)
    assert not has_batch_norm_kernel(torch.randn(1, 2, 3, 6)[..., ::2], norm)  # not dense
    assert not has_batch_norm_kernel(x, norm, shortcut[..., :2]) and not has_batch_norm_kernel(x, norm, shortcut.half())
    assert not has_batch_norm_kernel(x, norm_of([tensor.double() for tensor in channels]))
    assert not has_batch_norm_kernel(x, nn.BatchNorm2d(2, affine=False))
    assert not has_batch_norm_kernel(x, nn.BatchNorm2d(2, track_running_stats=False))


def test_what_does_not_fit_is_named():
    x, shortcut, channels = call((1, 4, 3, 3), torch.float32)
    with pytest.raises(RuntimeError, match='expected 4 channels of Float or of the dtype of the map, got Float'):
        batch_norm_relu_(x, channels[0][:3], *channels[1:], 1e-5)
    with pytest.raises(RuntimeError, match='expected 4 channels of Float or of the dtype of the map, got Double'):
        batch_norm_relu_(x, channels[0].double(), *channels[1:], 1e-5)
    with pytest.raises(RuntimeError, match='expected a shortcut like Float'):
        batch_norm_relu_(x, *channels, 1e-5, shortcut[..., :2])
    with pytest.raises(RuntimeError, match='expected a dense 4-d tensor'):
        batch_norm_relu_(torch.randn(1, 4, 3, 6)[..., ::2], *channels, 1e-5)
