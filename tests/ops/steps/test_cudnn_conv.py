"""Convolutions with what follows them by cuDNN, with torch's own operators in its place: tested without a GPU."""

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from icconv_mm.ops.steps import cudnn_conv
from icconv_mm.ops.steps.cudnn_conv import (
    cudnn_conv2d_add_relu,
    cudnn_conv2d_relu,
    has_cudnn_conv_kernel,
    is_fused_by_cudnn,
)

X, Z, WEIGHT, BIAS = torch.randn(2, 8, 11, 9), torch.randn(2, 6, 11, 9), torch.randn(6, 8, 3, 3), torch.randn(6)
SETTINGS = WEIGHT, BIAS, (1, 1), (1, 1), (1, 1), 1


def right(x, weight, *rest):
    *z, bias, _, _, _, _ = rest
    y = F.conv2d(x, weight, bias, padding=1)
    return (y + z[0] if z else y).relu()


def refuse(*_):
    raise RuntimeError('CUDNN_STATUS_NOT_SUPPORTED')


@pytest.fixture
def put(monkeypatch):
    """Puts a function in the place of those of cuDNN, on the CPU."""

    def in_place(stub):
        cudnn_conv._fuses.cache_clear()
        monkeypatch.setattr(torch, 'cudnn_convolution_relu', stub)
        monkeypatch.setattr(torch, 'cudnn_convolution_add_relu', stub)

    monkeypatch.setattr(cudnn_conv, '_DEVICE', 'cpu')
    monkeypatch.setattr(torch.backends.cudnn, 'is_available', lambda: True)
    yield in_place
    cudnn_conv._fuses.cache_clear()


def test_without_a_gpu_it_does_not_serve():
    assert not is_fused_by_cudnn(WEIGHT) and not has_cudnn_conv_kernel(WEIGHT, X)


@pytest.mark.parametrize(('stub', 'expected'), [(right, True), (refuse, False), (lambda x, *_: x * 0, False)])
def test_a_trial_decides(stub, expected, put):
    """Some versions of cuDNN refuse a dtype; others might compute something else."""
    put(stub)
    state = torch.get_rng_state()
    assert is_fused_by_cudnn(WEIGHT) is expected
    assert torch.equal(torch.get_rng_state(), state)


def test_calls(put):
    put(right)
    y = F.conv2d(X, WEIGHT, BIAS, padding=1)
    torch.testing.assert_close(cudnn_conv2d_relu(X, *SETTINGS), y.relu())
    torch.testing.assert_close(cudnn_conv2d_add_relu(X, Z, *SETTINGS), (y + Z).relu())


def test_calls_that_are_left_to_torch(put):
    assert has_cudnn_conv_kernel(WEIGHT, X, Z)
    for maps in ((X[0],), (X[:0],), (X.double(),), (X, Z.double()), (X.clone().requires_grad_(), Z), (X.to('meta'),)):
        assert not has_cudnn_conv_kernel(WEIGHT, *maps)
    assert not has_cudnn_conv_kernel(WEIGHT.clone().requires_grad_(), X)
    with torch.autocast('cpu'):
        assert not has_cudnn_conv_kernel(WEIGHT, X)
    with FlopCounterMode(display=False):
        assert not has_cudnn_conv_kernel(WEIGHT, X)
    with torch.backends.cudnn.flags(enabled=False):
        assert not has_cudnn_conv_kernel(WEIGHT, X)
