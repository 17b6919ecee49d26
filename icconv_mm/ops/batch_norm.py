"""Batch norm by running statistics, the sum with a shortcut and ReLU, in place.

What follows a convolution of a residual network in evaluation mode. torch runs a step each, and the norm makes a new
map; the compiled CPU kernel passes over memory once, in the map that the convolution made.
"""

import torch
from torch import Tensor

from icconv_mm.ops.backend import Limits
from icconv_mm.ops.operator import define, without_gradient


def batch_norm_relu_(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    mean: Tensor,
    var: Tensor,
    eps: float,
    shortcut: Tensor | None = None,
    relu: bool = False,
) -> Tensor:
    """``x = (x - mean) / sqrt(var + eps) * weight + bias``, then ``+ shortcut``, then ReLU, in place.

    Args:
        x: ``[N, C, H, W]``, dense, NCHW or channels_last.
        weight, bias, mean, var: ``[C]``, float32 (float64 for float64).
        eps: What is added to the variance.
        shortcut: ``[N, C, H, W]`` of the dtype of x, or None.
        relu: Whether negative values become zero.

    Returns:
        x.

    Raises:
        RuntimeError: If a tensor requires a gradient while gradients are recorded; from the compiled kernel, if shapes
            or dtypes do not fit: it names those found.
    """
    _operator(x, weight, bias, mean, var, eps, shortcut, relu)
    return x


def run_compiled(*args) -> None:
    """The kernel without the choice of one, which costs more than a small map: for callers that have made it."""
    torch.ops.icconv_mm.batch_norm_relu__compiled.default(*args)  # is there only after the library is


def _reference(x, weight, bias, mean, var, eps, shortcut=None, relu=False):
    scale = weight / (var + eps).sqrt()
    x.mul_(scale[:, None, None]).add_((bias - mean * scale)[:, None, None])
    if shortcut is not None:
        x += shortcut
    if relu:
        x.relu_()


def _refusal(x, *_) -> str | None:
    if x.device.type != 'cpu':
        return f'it takes tensors on the CPU, got {x.device}'
    if not (x.is_contiguous() or x.is_contiguous(memory_format=torch.channels_last)):
        return f'it takes dense maps, got strides {x.stride()}'
    return None


_operator = define(
    'batch_norm_relu_',
    '(Tensor(a!) x, Tensor weight, Tensor bias, Tensor mean, Tensor var, float eps, Tensor? shortcut, bool relu) -> ()',
    _reference,
    fake=lambda *_: None,
    autograd=without_gradient,
    kernels={'cpu': Limits(_refusal)},
)
