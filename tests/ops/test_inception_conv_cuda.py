"""The CUDA kernel against the definition, on a real card: `pytest -m gpu`."""

import pytest
import torch
from inception_calls import Call, per_run, random_call

from icconv_mm.ops import backends, inception_conv2d, use_backend

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not backends()['cuda'], reason=backends()['cuda'].detail),
]
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}


def on_card(call: Call, dtype: torch.dtype) -> Call:
    call = call.to(dtype)
    bias = None if call.bias is None else call.bias.cuda()
    return call._replace(x=call.x.cuda(), weight=call.weight.cuda(), bias=bias)


@pytest.mark.parametrize('dtype', TOLERANCE)
def test_equals_the_definition(dtype):
    for seed in range(100):
        call = random_call(seed)
        with use_backend('cuda'):
            out = inception_conv2d(*on_card(call, dtype))
        expected = per_run(call)
        assert out.dtype == dtype and out.shape == expected.shape
        if expected.numel():
            error = (out.cpu().double() - expected).abs().max() / expected.abs().max()
            assert error <= TOLERANCE[dtype], (seed, error)


def test_gradients():
    for seed in range(20):
        call = on_card(random_call(seed, min_batch=1), torch.float64)
        gradients = []
        for backend in ('reference', 'cuda'):
            x, weight = call.x.clone().requires_grad_(), call.weight.clone().requires_grad_()
            with use_backend(backend):
                out = inception_conv2d(x, weight, *call[2:])
            gradients.append(torch.autograd.grad(out.square().sum(), (x, weight)))
        torch.testing.assert_close(*gradients)


def test_runs_on_the_current_stream():
    call = on_card(random_call(3, min_batch=1), torch.float32)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream), use_backend('cuda'):
        out = inception_conv2d(*call)
    torch.cuda.current_stream().wait_stream(stream)
    torch.testing.assert_close(out, per_run(call), rtol=1e-3, atol=1e-3)
