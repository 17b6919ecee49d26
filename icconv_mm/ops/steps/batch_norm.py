"""Batch norm by running statistics, the sum with a shortcut and ReLU, in place and in one pass over memory.

What follows a convolution of a residual network in evaluation mode. torch runs a step each, and the norm makes a new
map; the compiled CPU kernel passes over memory once, in the map that the convolution made. Those steps of torch, which
:func:`icconv_mm.layers.normalization.norm_relu` takes everywhere else, are its reference.
"""

from functools import cache

import torch
from torch import Tensor

from icconv_mm.ops.dispatch import backend
from icconv_mm.ops.steps.own_choice import is_recorded, may_run_on_cpu


def has_batch_norm_kernel(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor | None, shortcut: Tensor | None
) -> bool:
    """Whether :func:`batch_norm_relu_` may run: its kernel serves such a call, and nothing looks at the single steps.

    For tensors that are no subclass.
    """
    if is_recorded(x, weight, bias, shortcut) or not may_run_on_cpu():
        return False
    if x.device.type != 'cpu' or weight is None or mean is None or x.ndim != 4:
        return False
    if shortcut is not None and (shortcut.shape != x.shape or shortcut.dtype != x.dtype):
        return False
    exact = torch.float64 if x.dtype == torch.float64 else torch.float32
    is_dense = x.is_contiguous(memory_format=torch.channels_last) or x.is_contiguous()
    return weight.dtype == mean.dtype and weight.dtype in (exact, x.dtype) and is_dense and _has_kernel()


def batch_norm_relu_(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    mean: Tensor,
    var: Tensor,
    eps: float,
    shortcut: Tensor | None = None,
    relu: bool = False,
) -> None:
    """``x = (x - mean) / sqrt(var + eps) * weight + bias``, then ``+ shortcut``, then ReLU, in place.

    Args:
        x: ``[N, C, H, W]``, dense, NCHW or channels_last.
        weight, bias, mean, var: ``[C]``, float32 (float64 for float64) or of the dtype of x.
        eps: What is added to the variance.
        shortcut: ``[N, C, H, W]`` of the dtype of x, or None.
        relu: Whether negative values become zero.

    Raises:
        RuntimeError: If shapes or dtypes do not fit; it names those found.
    """
    run = torch.ops.icconv_mm.batch_norm_relu__compiled.default  # is there only after the library is
    run(x, weight, bias, mean, var, eps, shortcut, relu)


@cache
def _has_kernel() -> bool:
    """Whether the compiled library is there, and has it."""
    return backend.missing_kernel('batch_norm_relu__compiled', 'cpu') is None
