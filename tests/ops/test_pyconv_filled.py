"""Pyramidal convolutions as one dense convolution, which GPUs run: against the definition, and when they are chosen."""

import pytest
import torch
from pyconv_calls import by_level, random_call

from icconv_mm.ops import convolution, explain, pyconv, pyconv2d, pyconv2d_relu, use_backend

HOPPER, OTHER = (9, 0), (8, 6)


def gradients(function, call):
    """Output, and the gradients of x, weights and bias, for a random gradient of the output."""
    tensors = [t.detach().requires_grad_() for t in (call.x, *call.weights, call.bias) if t is not None]
    weights = tensors[1 : 1 + len(call.weights)]
    bias = None if call.bias is None else tensors[-1]
    out = function(call._replace(x=tensors[0], weights=weights, bias=bias))
    grad = torch.randn(out.shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64).to(out)
    return [out.detach(), *torch.autograd.grad(out, tensors, grad)]


def run(call):
    return pyconv2d(*call)


@pytest.fixture
def as_on_a_card(monkeypatch):
    """The CPU passes for a GPU, of the compute capability that the test sets."""
    held = {'capability': HOPPER}
    monkeypatch.setattr(convolution, 'capability', lambda device: held['capability'])
    monkeypatch.setattr(pyconv, 'device_refusal', lambda tensors, device: None)
    return held


@pytest.mark.parametrize('start', range(0, 200, 50))
def test_equals_the_definition(as_on_a_card, start):
    for seed in range(start, start + 50):
        call = random_call(seed)
        with use_backend('cuda'):
            assert explain('pyconv2d', *call).chosen == 'cuda'  # else the reference is compared
            got = gradients(run, call)
        for one, other in zip(got, gradients(by_level, call), strict=True):
            torch.testing.assert_close(one, other, msg=lambda text, seed=seed: f'{seed}: {text}')


def test_is_differentiable_twice(as_on_a_card):
    shapes = (1, 4, 3, 4), (2, 4, 3, 3), (4, 2, 5, 3)
    generator = torch.Generator().manual_seed(0)
    tensors = [torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_() for shape in shapes]
    with use_backend('cuda'):
        assert torch.autograd.gradgradcheck(lambda x, *weights: pyconv2d(x, weights, None, (1, 2), 2), tensors)


def test_relu(as_on_a_card):
    for seed in range(20):
        call = random_call(seed)
        with use_backend('cuda'):
            torch.testing.assert_close(pyconv2d_relu(*call), by_level(call).relu())


def test_compiles(as_on_a_card):
    x, weights = torch.randn(1, 8, 9, 9), [torch.randn(4, 8, 3, 3), torch.randn(4, 4, 5, 5)]
    with use_backend('cuda'):
        compiled = torch.compile(lambda x, *weights: pyconv2d(x, weights, None, (1, 2)), backend='aot_eager')
        torch.testing.assert_close(compiled(x, *weights), pyconv2d(x, weights, None, (1, 2)))


def test_chosen_where_it_was_measured(as_on_a_card):
    def ask(channels=64, side=9, dtype=torch.bfloat16):
        x = torch.empty(2, channels, 8, 8, dtype=dtype)
        weights = [x.new_empty(8, channels, 3, 3), x.new_empty(8, channels // 2, side, side)]
        sizes = [8, 3, 3, 8, side, side]
        settings = (1, 2), 1, 1
        grad = x.new_empty(2, 16, 8, 8)
        return [
            explain('pyconv2d', x, weights, None, *settings)['cuda'],
            explain('pyconv2d_grad_input', grad, weights, (8, 8), *settings)['cuda'],
            explain('pyconv2d_grad_weight', grad, x, sizes, *settings)['cuda'],
        ]

    assert all(ask()) and all(ask(dtype=torch.float16)) and all(ask(256, 5))
    for answers, reason in (
        (ask(dtype=torch.float32), 'in torch.float32 it was not measured'),
        (ask(128), 'an output has 10368 factors; above 6400 it was not measured'),
    ):
        assert all(answer.supports and answer.reason == reason for answer in answers)
    as_on_a_card['capability'] = OTHER
    assert all('tests have not passed on a GPU like' in answer.reason for answer in ask())


def test_serves_no_cpu():
    x, weights = torch.randn(1, 8, 9, 9), [torch.randn(4, 8, 3, 3), torch.randn(4, 4, 5, 5)]
    with use_backend('cuda'), pytest.raises(RuntimeError, match='needs tensors on a CUDA device, got cpu'):
        pyconv2d(x, weights, None, (1, 2))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
@pytest.mark.parametrize('dtype', [torch.float32, torch.float16, torch.bfloat16])
def test_on_a_gpu(dtype):
    tolerance = {torch.float32: 1e-5, torch.float16: 5e-3, torch.bfloat16: 4e-2}[dtype]
    for seed in range(40):
        call = random_call(seed, min_batch=1).to(dtype)
        call = call._replace(
            x=call.x.cuda(),
            weights=[weight.cuda() for weight in call.weights],
            bias=None if call.bias is None else call.bias.cuda(),
        )
        with use_backend('cuda'), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            got = gradients(run, call)
        with torch.backends.cudnn.flags(enabled=False):
            expected = gradients(by_level, call.to(torch.float64))
        for one, other in zip(got, expected, strict=True):
            error = (one.double() - other).abs().max() / other.abs().max().clamp(min=1)
            assert error <= tolerance, (seed, error)
