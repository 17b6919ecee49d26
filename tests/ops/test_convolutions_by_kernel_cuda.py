"""The CUDA kernels of both convolutions that a call can ask for by name, on a real GPU: `pytest -m gpu`."""

import random

import pytest
import torch
from inception_calls import Call, per_run, random_call, random_pattern, wide_call
from pyconv_calls import Call as PyConvCall
from pyconv_calls import definition
from pyconv_calls import random_call as random_pyramid
from pyconv_calls import vector_call as vector_pyramid

from icconv_mm.ops import backends, explain, inception_conv2d, pyconv2d, use_backend, use_kernel
from icconv_mm.ops.dispatch.kernel_table import KERNELS

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not backends()['cuda'], reason=backends()['cuda'].reason),
]

# largest deviation from the definition in float64, of the largest value
TOLERANCE = {'float64': 1e-12, 'float32': 1e-5, 'tf32': 2e-3, 'float16': 2e-3, 'bfloat16': 2e-2}
# what a sum may lose of the sum of its terms' absolute values, which is much where it cancels
CANCELLED = {'float64': 2e-15, 'float32': 1e-6, 'tf32': 2**-10, 'float16': 1e-6, 'bfloat16': 1e-6}
ops = torch.ops.icconv_mm


@pytest.fixture(params=TOLERANCE)
def precision(request, monkeypatch):
    """A name of TOLERANCE; TF32 is on for it, and off for the others."""
    monkeypatch.setattr(torch.backends.cudnn, 'allow_tf32', request.param == 'tf32')
    return request.param


@pytest.fixture
def workspace():
    before = ops.set_kn2row_workspace(1 << 28)
    yield ops.set_kn2row_workspace
    ops.set_kn2row_workspace(before)


def dtype_of(precision: str) -> torch.dtype:
    return getattr(torch, {'tf32': 'float32'}.get(precision, precision))


def on_card(call, dtype: torch.dtype):
    call = call.to(dtype)
    moved = {name: value.cuda() for name, value in call._asdict().items() if isinstance(value, torch.Tensor)}
    if hasattr(call, 'weights'):
        moved['weights'] = [weight.cuda() for weight in call.weights]
    return call._replace(**moved)


def near(one, other, precision, note, terms=None):
    """``terms``: the sums without signs, for calls so small that all of a result may cancel."""
    assert one.shape == other.shape, note
    if other.numel():
        lost = 0 if terms is None else CANCELLED[precision] * terms.max().item()
        error = (one.double() - other).abs().max().item()
        assert error <= TOLERANCE[precision] * other.abs().max().clamp(min=1e-3).item() + lost, (note, error)


def flat(call: Call) -> list[int]:
    return [number for run in call.pattern for number in run]


def check(call: Call, precision: str, note, kernel='kn2row', gradients=True):
    call = on_card(call._replace(stride=min(call.stride, 2)), dtype_of(precision))
    exact = call.to(torch.float64)
    x, weight = exact.x.clone().requires_grad_(), exact.weight.clone().requires_grad_()
    with torch.backends.cudnn.flags(enabled=False):  # it plans anew for every shape
        expected = per_run(exact._replace(x=x, weight=weight))
        grad = torch.randn(expected.shape, device='cuda').to(call.x.dtype)
        to_x, to_weight = torch.autograd.grad(expected, (x, weight), grad.double())
    settings = flat(call), call.stride, call.groups
    relu = call.x.numel() % 2 == 0
    got = ops.inception_conv2d_by(kernel, call.x, call.weight, call.bias, *settings, relu)
    near(got, expected.detach().relu() if relu else expected.detach(), precision, note)
    if gradients:
        if got.is_contiguous(memory_format=torch.channels_last):
            grad = grad.to(memory_format=torch.channels_last)
        size = list(call.x.shape[2:])
        near(ops.inception_conv2d_grad_input_by('kn2row', grad, call.weight, size, *settings), to_x, precision, note)
        near(ops.inception_conv2d_grad_weight_by('kn2row', grad, call.x, *settings), to_weight, precision, note)


@pytest.mark.parametrize('start', range(0, 300, 100))
def test_kn2row_equals_the_definition(precision, start, workspace):
    for seed in range(start, start + 100):
        workspace(random.Random(seed).choice([1, 30000, 1 << 28]))
        check(random_call(seed), precision, seed)


@pytest.mark.parametrize('kernel', ['kn2row', 'hybrid'])
def test_kn2row_in_vectors(precision, kernel, workspace):
    for seed in range(100):
        workspace(random.Random(seed).choice([1_000_000, 1 << 28]))
        check(wide_call(seed), precision, seed, kernel)


@pytest.mark.parametrize('channels', [64, 128, 256, 512])
@pytest.mark.parametrize('stride', [1, 2])
def test_kn2row_at_the_sizes_of_a_backbone(precision, channels, stride):
    generator = torch.Generator().manual_seed(channels)
    x = torch.randn(2, channels, 26, 42, generator=generator).to(memory_format=torch.channels_last)
    weight = torch.randn(channels, channels, 3, 3, generator=generator) / channels
    pattern = [(channels * 5 // 8, 1, 1), *random_pattern(random.Random(channels), channels - channels * 5 // 8, 4)]
    for kernel in ('kn2row', 'hybrid'):
        check(Call(x.double(), weight.double(), None, pattern, stride, 1), precision, pattern, kernel)


def wgmma_refusal() -> str:
    """Why 'fused_wgmma' cannot run here, in its own words."""
    x, weight = torch.zeros(1, 64, 8, 8, device='cuda').half(), torch.zeros(64, 64, 3, 3, device='cuda').half()
    try:
        ops.inception_conv2d_by('fused_wgmma', x, weight, None, [64, 1, 1], 1, 1, False)
    except RuntimeError as error:
        return str(error).splitlines()[0]
    return ''


@pytest.mark.parametrize('precision', ['float16', 'bfloat16'], indirect=True)
@pytest.mark.parametrize('size', [(16, 16), (33, 47), (5, 70), (1, 1), (200, 336)])
@pytest.mark.parametrize('kernel', ['fused', 'fused_wgmma'])
def test_fused_equals_the_definition(precision, size, kernel):
    if kernel == 'fused_wgmma' and (reason := wgmma_refusal()):
        pytest.skip(reason)
    for seed in range(10):
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(2, 64, *size, generator=generator).to(memory_format=torch.channels_last)
        weight = torch.randn(64, 64, 3, 3, generator=generator) / 24
        long = seed * 7 % 57
        pattern = [(long, 1, 1)] * (long > 0) + random_pattern(random.Random(seed), 64 - long, 4)
        bias = torch.randn(64, generator=generator) if seed % 2 else None
        call = Call(x.double(), weight.double(), bias if bias is None else bias.double(), pattern, 1, 1)
        check(call, precision, (seed, pattern), kernel, gradients=False)


def test_fused_says_what_it_does_not_take():
    x, weight = torch.randn(1, 32, 8, 8, device='cuda').half(), torch.randn(64, 32, 3, 3, device='cuda').half()
    with pytest.raises(RuntimeError, match="the kernel 'fused' is not one of this operator or does not take"):
        ops.inception_conv2d_by('fused', x, weight, None, [32, 1, 1, 32, 2, 2], 1, 1, False)


def test_wgmma_is_for_9_0_and_for_builds_that_have_it():
    capability, reason = torch.cuda.get_device_capability(), wgmma_refusal()
    if capability != (9, 0):
        assert 'needs a GPU of compute capability 9.0, this one has {}.{}'.format(*capability) in reason
    elif reason:
        assert 'is not in this build, which TORCH_CUDA_ARCH_LIST=9.0a would make' in reason
    else:
        x, weight = torch.zeros(1, 64, 8, 8, device='cuda').half(), torch.zeros(64, 64, 3, 3, device='cuda').half()
        with pytest.raises(RuntimeError, match=r'needs [0-9]+ bytes of shared memory for these dilations'):
            ops.inception_conv2d_by('fused_wgmma', x, weight, None, [64, 12, 12], 1, 1, False)


def test_the_same_bits_in_every_run():
    for dtype in (torch.bfloat16, torch.float32):
        call = on_card(wide_call(3)._replace(stride=1), dtype)
        settings = flat(call), 1, call.groups
        first = None
        for _ in range(4):
            out = ops.inception_conv2d_by('kn2row', call.x, call.weight, call.bias, *settings, False)
            size = list(call.x.shape[2:])
            results = [
                out,
                ops.inception_conv2d_grad_input_by('kn2row', out, call.weight, size, *settings),
                ops.inception_conv2d_grad_weight_by('kn2row', out, call.x, *settings),
            ]
            first = first or results
            assert all(map(torch.equal, results, first))


@pytest.mark.parametrize('kernel', ['kn2row', 'hybrid', 'fused'])
def test_captured_in_a_graph(kernel):
    """With a pattern that no earlier call has uploaded."""
    length = {'kn2row': 39, 'hybrid': 41, 'fused': 43}[kernel]
    pattern = [length, 1, 1, 3, 2, 4, 5, 4, 1, 56 - length, 3, 3]
    x = torch.randn(2, 64, 30, 44, device='cuda', dtype=torch.bfloat16).to(memory_format=torch.channels_last)
    weight = torch.randn(64, 64, 3, 3, device='cuda', dtype=torch.bfloat16) / 24

    def run(pattern):
        pattern = [*pattern[:-3], 64 - sum(pattern[:-3:3]), *pattern[-2:]]
        out = ops.inception_conv2d_by(kernel, x, weight, None, pattern, 1, 1, True)
        to_x = ops.inception_conv2d_grad_input_by('kn2row', out, weight, [30, 44], pattern, 1, 1)
        return out, to_x, ops.inception_conv2d_grad_weight_by('kn2row', out, x, pattern, 1, 1)

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        run([8, 1, 1, 1, 2, 2])  # loads the libraries and the kernels, not this pattern's tables
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = run(pattern)
    for seed in range(3):
        torch.manual_seed(seed)
        x.normal_(), weight.normal_()
        graph.replay()
        for one, two in zip(captured, run(pattern)):
            torch.testing.assert_close(one, two, rtol=2e-2, atol=2e-2 * two.abs().max().item())


def test_tf32_off_for_convolutions_alone(monkeypatch):
    """The switch for products of matrices does not take digits that convolutions keep."""
    call = wide_call(6)._replace(stride=1)
    monkeypatch.setattr(torch.backends.cudnn, 'allow_tf32', False)
    monkeypatch.setattr(torch.backends.cuda.matmul, 'allow_tf32', True)
    check(call, 'float32', 'tf32 for products alone')


def test_workspace_keeps_to_its_limit(workspace):
    x = torch.randn(4, 64, 100, 100, device='cuda', dtype=torch.bfloat16).to(memory_format=torch.channels_last)
    weight = torch.randn(64, 64, 3, 3, device='cuda', dtype=torch.bfloat16)
    peaks = []
    for limit in (1 << 30, 8 << 20):
        workspace(limit)
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        ops.inception_conv2d_by('kn2row', x, weight, None, [40, 1, 1, 24, 4, 4], 1, 1, False)
        peaks.append(torch.cuda.max_memory_allocated() - before - x.nbytes)
    assert peaks[1] < 12 << 20 < 40 << 20 < peaks[0]


def takes(by_name, *args) -> bool:
    try:
        by_name(*args)
    except RuntimeError:
        return False
    return True


@pytest.mark.parametrize('kernel', KERNELS['inception_conv2d'])
def test_explain_names_the_kernel_that_serves(precision, kernel):
    """The one in use where it takes the call; else what serves without it, which then takes the call by name."""
    for channels, pattern, stride in (
        (64, (40, 1, 1, 24, 4, 4), 1),
        (64, (64, 30, 30), 2),
        (12, (6, 1, 1, 6, 2, 3), 3),
    ):
        x = torch.randn(2, channels, 33, 40, device='cuda', dtype=dtype_of(precision))
        call = x, torch.randn(channels, channels, 3, 3).to(x), None, pattern, stride, 1
        with use_backend('cuda'), use_kernel('inception_conv2d', kernel):
            found = explain('inception_conv2d', *call).kernel
        assert (found == kernel) == takes(ops.inception_conv2d_by, kernel, *call, False)
        assert takes(ops.inception_conv2d_by, found, *call, False)


@pytest.mark.parametrize('kernel', KERNELS['pyconv2d'])
def test_explain_names_the_kernel_of_a_pyramid(precision, kernel):
    for seed in range(20):
        call = on_card(random_pyramid(seed, min_batch=1), dtype_of(precision))
        settings = call.groups, call.stride, call.dilation
        with use_backend('cuda'), use_kernel('pyconv2d', kernel):
            found = explain('pyconv2d', *call).kernel
        assert (found == kernel) == takes(ops.pyconv2d_by, kernel, call.x, call.weights, call.bias, *settings, False)


def test_a_network_runs_the_kernel_in_use():
    call = on_card(wide_call(8)._replace(stride=1), torch.bfloat16)
    by_name = ops.inception_conv2d_by('kn2row', call.x, call.weight, call.bias, flat(call), 1, call.groups, False)
    with use_kernel('inception_conv2d', 'kn2row'), use_backend('cuda'):
        assert torch.equal(inception_conv2d(*call), by_name)


def check_pyramid(call: PyConvCall, kernel: str, precision: str, note, gradients: str = 'iw'):
    call = on_card(call, dtype_of(precision))
    settings = call.groups, call.stride, call.dilation
    got = ops.pyconv2d_by(kernel, call.x, call.weights, call.bias, *settings, False)
    grad = torch.randn(got.shape, generator=torch.Generator().manual_seed(7)).to(call.x)
    exact = call.to(torch.float64)
    with torch.backends.cudnn.flags(enabled=False):
        out, to_x, *to_weights = definition(exact, grad.double())
        terms, terms_of_x, *terms_of_weights = definition(exact.absolute(), grad.double().abs())
    near(got, out, precision, note, terms)
    if 'i' in gradients:
        size = list(call.x.shape[2:])
        found = ops.pyconv2d_grad_input_by(kernel, grad, call.weights, size, *settings)
        near(found, to_x, precision, note, terms_of_x)
    if 'w' in gradients:
        shapes = [number for weight in call.weights for number in (weight.shape[0], *weight.shape[2:])]
        found = ops.pyconv2d_grad_weight_by(kernel, grad, call.x, shapes, *settings)
        for one, other, sums in zip(found, to_weights, terms_of_weights, strict=True):
            near(one, other, precision, note, sums)


@pytest.mark.parametrize('kernel', ['dense', 'merged'])
def test_filled_pyramids_equal_the_definition(precision, kernel):
    for seed in range(60):
        check_pyramid(random_pyramid(seed, min_batch=1), kernel, precision, seed)


STAGES = [
    ((16, 16, 16, 16), (3, 5, 7, 9), (1, 4, 8, 16), 64, (40, 56)),
    ((32, 32, 64), (3, 5, 7), (1, 4, 8), 128, (25, 42)),
    ((128, 128), (3, 5), (1, 4), 256, (13, 21)),
    ((8, 8, 24), (3, 5, 7), (1, 2, 4), 40, (1, 35)),
]


@pytest.mark.parametrize('precision', ['float16', 'bfloat16'], indirect=True)
@pytest.mark.parametrize('stage', range(len(STAGES)))
@pytest.mark.parametrize('stride', [1, 2])
def test_tiled_pyramids_equal_the_definition(precision, stage, stride):
    outputs, kernels, groups, channels, size = STAGES[stage]
    generator = torch.Generator().manual_seed(stage)
    weights = [
        torch.randn(out, channels // group, side, side, generator=generator).double()
        / side
        / (channels // group) ** 0.5
        for out, side, group in zip(outputs, kernels, groups)
    ]
    x = torch.randn(2, channels, *size, generator=generator).double()
    for dilation in (1, 2):
        for bias in (None, torch.randn(sum(outputs), generator=generator).double()):
            call = PyConvCall(x, weights, bias, list(groups), stride, dilation)
            check_pyramid(call, 'tiled', precision, (dilation, bias is None))


@pytest.mark.parametrize('precision', ['float16', 'bfloat16'], indirect=True)
def test_tiled_pyramids_of_many_shapes(precision):
    for seed in range(120):
        call = vector_pyramid(seed)
        check_pyramid(call, 'tiled', precision, seed, 'iw' if call.stride <= 2 else 'w')


@pytest.mark.parametrize('stride', [1, 2])
def test_tiled_pyramids_in_a_graph(stride):
    """The same bits as outside of it and in every run, of levels that no earlier call has uploaded."""
    groups, sides = [1, 2, 4], [(3, 3), (5, 3), (7, 1)]
    x = torch.randn(2, 48, 45, 61, device='cuda', dtype=torch.bfloat16).to(memory_format=torch.channels_last)
    weights = [torch.randn(8 * stride, 48 // group, *side).to(x) / 20 for group, side in zip(groups, sides)]

    def run(x, weights, groups):
        settings = groups, stride, 1
        out = ops.pyconv2d_by('tiled', x, weights, None, *settings, True)
        to_x = ops.pyconv2d_grad_input_by('tiled', out, weights, list(x.shape[2:]), *settings)
        shapes = [number for weight in weights for number in (weight.shape[0], *weight.shape[2:])]
        return [out, to_x, *ops.pyconv2d_grad_weight_by('tiled', out, x, shapes, *settings)]

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        run(x, weights[:1], groups[:1])  # loads the libraries and the kernels, not these levels' tables
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = run(x, weights, groups)
    for _ in range(3):
        x.normal_()
        graph.replay()
        assert all(map(torch.equal, captured, run(x, weights, groups)))


def test_pyramids_run_where_they_are_asked_for():
    call = on_card(random_pyramid(5, min_batch=1), torch.float32)
    with use_backend('cuda'):
        got = pyconv2d(*call)
    with use_backend('reference'):
        torch.testing.assert_close(got, pyconv2d(*call), rtol=2e-3, atol=2e-3)
