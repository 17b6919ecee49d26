"""The CUDA kernels of the inception convolution against the definition, on a real GPU: `pytest -m gpu`."""

import random

import pytest
import torch
from inception_calls import Call, per_run, random_call, random_pattern, wide_call

from icconv_mm.ops import backends, convolution, explain, inception_conv2d, use_backend
from icconv_mm.patterns.pattern import MAX_DILATION

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not backends()['cuda'], reason=backends()['cuda'].reason),
]

# largest deviation from the definition in float64, of the largest value
TOLERANCE = {
    'float64': 1e-12,
    'float32': 1e-5,
    'tf32': 2e-3,
    'float16': 2e-3,
    'bfloat16': 2e-2,
}


@pytest.fixture(params=TOLERANCE)
def precision(request, monkeypatch):
    """A name of TOLERANCE; TF32 is on for it, and off for the others."""
    monkeypatch.setattr(torch.backends.cudnn, 'allow_tf32', request.param == 'tf32')
    return request.param


def dtype_of(precision: str) -> torch.dtype:
    return getattr(torch, {'tf32': 'float32'}.get(precision, precision))


def on_card(call: Call, dtype: torch.dtype) -> Call:
    call = call.to(dtype)
    bias = None if call.bias is None else call.bias.cuda()
    return call._replace(x=call.x.cuda(), weight=call.weight.cuda(), bias=bias)


def gradients(function, call: Call, grad=None):
    """Output, and the gradients of x, weight and bias, for an output gradient which is random unless given."""
    tensors = [t.detach().requires_grad_() for t in (call.x, call.weight, call.bias) if t is not None]
    out = function(call._replace(x=tensors[0], weight=tensors[1], bias=tensors[2] if call.bias is not None else None))
    if grad is None:
        generator = torch.Generator(out.device).manual_seed(7)
        grad = torch.randn(out.shape, generator=generator, dtype=torch.float32, device=out.device)
    return [out.detach(), *torch.autograd.grad(out, tensors, grad.to(out.dtype))]


def on_cuda(call: Call):
    with use_backend('cuda'):
        return inception_conv2d(*call)


def assert_equals_the_definition(call: Call, precision: str, note):
    dtype = dtype_of(precision)
    call = on_card(call, dtype)
    got = gradients(on_cuda, call)
    grad = torch.randn(
        got[0].shape, generator=torch.Generator('cuda').manual_seed(7), dtype=torch.float32, device='cuda'
    ).to(dtype)
    with torch.backends.cudnn.flags(enabled=False):  # it plans anew for every shape
        expected = gradients(per_run, call.to(torch.float64), grad)
    for name, one, other in zip(('out', 'grad_x', 'grad_weight', 'grad_bias'), got, expected):
        assert one.dtype == dtype and one.shape == other.shape, (note, name)
        if name == 'grad_bias' or not other.numel():  # torch's own sum
            continue
        error = ((one.double() - other).abs().max() / other.abs().max().clamp(min=1e-3)).item()
        assert error <= TOLERANCE[precision], (note, name, error)


@pytest.mark.parametrize('start', range(0, 500, 100))
def test_equals_the_definition(precision, start):
    """Small calls of any shape, among them empty batches and channels that do not fill vectors."""
    for seed in range(start, start + 100):
        assert_equals_the_definition(random_call(seed), precision, seed)


@pytest.mark.parametrize('start', range(0, 400, 100))
def test_equals_the_definition_in_tiles(precision, start):
    for seed in range(start, start + 100):
        assert_equals_the_definition(wide_call(seed), precision, seed)


@pytest.mark.parametrize('channels', [256, 512])
@pytest.mark.parametrize('stride', [1, 2])
def test_many_channels(precision, channels, stride):
    generator = torch.Generator().manual_seed(channels)
    x = torch.randn(2, channels, 26, 42, generator=generator).to(memory_format=torch.channels_last)
    weight = torch.randn(channels, channels, 3, 3, generator=generator) / channels
    pattern = random_pattern(random.Random(channels + stride), channels, 4)
    assert_equals_the_definition(Call(x.double(), weight.double(), None, pattern, stride, 1), precision, pattern)


def test_dilations_beyond_shared_memory(precision):
    call = wide_call(11)._replace(stride=1)
    channels = call.weight.shape[0]
    for far in ((40, 9), (300, 2000), (1, MAX_DILATION)):
        assert_equals_the_definition(call._replace(pattern=[(channels - 1, 1, 1), (1, *far)]), precision, far)


def test_runs_are_the_same_bit_for_bit(precision):
    for seed in range(10):
        call = on_card(wide_call(seed), dtype_of(precision))
        first = gradients(on_cuda, call)
        for _ in range(3):
            for one, other in zip(gradients(on_cuda, call), first):
                assert torch.equal(one, other), seed


def test_keeps_the_memory_format():
    for seed in range(20):
        call = on_card(wide_call(seed), torch.bfloat16)
        out = on_cuda(call)
        with use_backend('reference'):
            assert out.stride() == inception_conv2d(*call).stride(), seed


def test_tensors_that_are_not_contiguous(precision):
    """Views with gaps, expanded batches, and data that starts off a 16-byte boundary."""
    call = on_card(wide_call(5), dtype_of(precision))
    n, c, h, w = call.x.shape
    wide = torch.randn(n, c, h + 3, w + 2, device='cuda').to(call.x.dtype)
    flat = torch.randn(n * c * h * w + 1, device='cuda').to(call.x.dtype)
    for x in (
        wide[:, :, 1:-2, 2:],
        wide[:1, :, :h, :w].expand(n, -1, -1, -1),
        flat[1:].view(n, c, h, w),
        flat[1:].view(n, h, w, c).permute(0, 3, 1, 2),
        wide.transpose(2, 3)[:, :, :h, :w] if h <= w else wide[:, :, :h, :w],
    ):
        assert_equals_the_definition(call._replace(x=x), precision, tuple(x.stride()))


def test_batches_and_maps_of_nothing():
    call = on_card(wide_call(1), torch.bfloat16)
    for shape in ((0, *call.x.shape[1:]), (2, call.x.shape[1], 0, 7), (2, call.x.shape[1], 3, 0)):
        x = torch.zeros(shape, device='cuda', dtype=torch.bfloat16)
        got = gradients(on_cuda, call._replace(x=x, stride=1))
        assert got[0].numel() == 0 and got[1].shape == x.shape and not got[2].any()


def test_relu_in_the_same_pass(precision):
    for make in (wide_call, random_call):
        call = on_card(make(2), dtype_of(precision))
        pattern = [number for run in call.pattern for number in run]
        fused = torch.ops.icconv_mm.inception_conv2d_relu_compiled(
            call.x, call.weight, call.bias, pattern, call.stride, call.groups
        )
        assert torch.equal(fused.contiguous(), on_cuda(call).relu().contiguous())


def test_runs_on_the_current_stream():
    call = on_card(wide_call(3), torch.bfloat16)
    expected = gradients(on_cuda, call)
    stream = torch.cuda.Stream()
    for _ in range(20):
        slow = torch.randn(2048, 2048, device='cuda')
        with torch.cuda.stream(stream):
            stream.wait_stream(torch.cuda.current_stream())
            for _ in range(5):
                slow = slow @ slow * 1e-2
            x = call.x + (slow.sum() * 0).nan_to_num().to(call.x.dtype)  # ready only after the products
            got = gradients(on_cuda, call._replace(x=x))
        torch.cuda.current_stream().wait_stream(stream)
        for one, other in zip(got, expected):
            torch.testing.assert_close(one, other, rtol=0, atol=0)


@pytest.mark.skipif(not hasattr(torch.backends.cudnn, 'conv'), reason='a setting of torch 2.9 and later')
@pytest.mark.parametrize('precision', ['ieee', 'tf32'])
def test_the_setting_of_convolutions_alone(precision, monkeypatch):
    """It may differ from that of the rest of cuDNN."""
    call, setting = on_card(wide_call(6), torch.float32), torch.backends.cudnn.conv
    results = {}
    for name in ('ieee', 'tf32'):
        monkeypatch.setattr(torch.backends.cudnn, 'allow_tf32', name == 'tf32')
        results[name] = gradients(on_cuda, call)
    assert not torch.equal(results['ieee'][0], results['tf32'][0])
    torch.backends.cudnn.allow_tf32 = precision != 'tf32'
    setting.fp32_precision = precision
    try:
        got = gradients(on_cuda, call)
    finally:
        setting.fp32_precision = 'tf32' if precision == 'ieee' else 'ieee'  # as the rest, or nobody may ask
    assert all(map(torch.equal, got, results[precision]))


def test_captured_in_a_graph():
    """Forward and both gradients, with a pattern that no earlier call has uploaded."""
    pattern = [(41, 1, 1), (3, 2, 4), (5, 4, 1), (15, 3, 3)]
    x = torch.randn(2, 64, 30, 44, device='cuda', dtype=torch.bfloat16).to(memory_format=torch.channels_last)
    weight = torch.randn(64, 64, 3, 3, device='cuda', dtype=torch.bfloat16) / 24
    grad = torch.randn_like(x)
    call = Call(x, weight, None, pattern, 1, 1)
    other = call._replace(pattern=[(60, 1, 1), (4, 2, 2)])
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        gradients(on_cuda, other, grad)  # loads the kernels, not this pattern's tables
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = gradients(on_cuda, call, grad)
    for seed in range(3):
        torch.manual_seed(seed)
        x.normal_(), weight.normal_(), grad.normal_()
        graph.replay()
        for one, two in zip(captured, gradients(on_cuda, call, grad)):
            assert torch.equal(one, two)


def test_under_autocast():
    call = on_card(wide_call(8), torch.float32)
    for dtype in (torch.float16, torch.bfloat16):
        with torch.autocast('cuda', dtype=dtype):
            got = gradients(on_cuda, call)
        expected = gradients(on_cuda, call.to(dtype))
        assert got[0].dtype == dtype and got[1].dtype == torch.float32
        for one, other in zip(got, expected):
            torch.testing.assert_close(one.to(dtype), other)


@pytest.mark.parametrize('compiler', ['aot_eager', 'inductor'])
def test_compiled_with_torch(compiler):
    call = on_card(wide_call(9), torch.bfloat16)

    def network(x, weight, bias):
        return inception_conv2d(x.relu(), weight, bias, *call[3:]) * 2

    with use_backend('cuda'):
        compiled = torch.compile(network, backend=compiler, fullgraph=True)
        results = []
        for function in (compiled, network):
            x, weight = call.x.clone().requires_grad_(), call.weight.clone().requires_grad_()
            out = function(x, weight, call.bias)
            results.append((out, *torch.autograd.grad(out.float().square().mean(), (x, weight))))
    torch.testing.assert_close(*results, rtol=2e-2, atol=2e-2)


def test_more_elements_than_32_bits_count():
    shape = (9, 64, 2048, 1856)  # 2.2e9
    x = torch.randn(1, *shape[1:], device='cuda', dtype=torch.bfloat16).to(memory_format=torch.channels_last)
    weight = torch.randn(64, 64, 3, 3, device='cuda', dtype=torch.bfloat16) / 24
    pattern = [(42, 1, 1), (12, 1, 2), (10, 4, 3)]
    expected = gradients(on_cuda, Call(x, weight, None, pattern, 1, 1))
    many = torch.zeros(shape, device='cuda', dtype=torch.bfloat16).to(memory_format=torch.channels_last)
    many[-1:] = x
    grad = torch.zeros_like(many)
    grad[-1:] = torch.randn(
        expected[0].shape, generator=torch.Generator('cuda').manual_seed(7), dtype=torch.float32, device='cuda'
    )
    got = gradients(on_cuda, Call(many, weight, None, pattern, 1, 1), grad)
    assert torch.equal(got[0][-1:], expected[0]) and torch.equal(got[1][-1:], expected[1])
    assert not got[0][:-1].any() and not got[1][:-1].any()
    torch.testing.assert_close(got[2], expected[2], rtol=2e-2, atol=2e-1)  # another order of summation


def test_says_what_it_does_not_take():
    call = on_card(wide_call(4), torch.float32)
    with use_backend('cuda'):
        with pytest.raises(RuntimeError, match='got cpu'):
            inception_conv2d(*wide_call(4))
        with pytest.raises((RuntimeError, ValueError)):
            inception_conv2d(call.x, call.weight.half(), None, *call[3:])
        with pytest.raises((RuntimeError, ValueError)):
            inception_conv2d(call.x, call.weight.cpu(), None, *call[3:])


def test_chosen_by_default_where_it_is_proven(monkeypatch):
    def ask(dtype):
        x, weight = (torch.randn(shape, device='cuda', dtype=dtype) for shape in ((1, 32, 8, 8), (32, 32, 3, 3)))
        return explain('inception_conv2d', x, weight, None, [16, 1, 1, 16, 2, 2], 1, 1)

    monkeypatch.setattr(convolution, 'PROVEN', (torch.cuda.get_device_capability(),))
    assert ask(torch.bfloat16).chosen == 'cuda'
    assert ask(torch.float64).chosen == 'reference'
    monkeypatch.setattr(convolution, 'PROVEN', ())
    assert ask(torch.bfloat16).chosen == 'reference' and 'have not passed' in ask(torch.bfloat16)['cuda'].reason
