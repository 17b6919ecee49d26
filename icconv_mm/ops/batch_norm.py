"""Batch norm by running statistics, the sum with a shortcut and ReLU, in place."""

from functools import cache

import torch
from torch import Tensor

from icconv_mm.ops import backend
from icconv_mm.ops.operator import define, is_traced, without_gradient
from icconv_mm.ops.tensors import off_device
from icconv_mm.ops.torch_private import is_observed


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

    What follows a convolution of a residual network in evaluation mode. torch runs a step each, and the norm makes a
    new map; the compiled CPU kernel passes over memory once, in the map that the convolution made.

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


def runs_compiled(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor | None, shortcut: Tensor | None
) -> bool:
    """Whether the compiled kernel serves such a call and nothing looks at the single steps: :func:`run_compiled` may.

    For tensors that are no subclass. A choice of its own: that of an operator, and its dispatch, cost more than a small
    map.
    """
    if is_observed() or is_traced() or backend.requested() not in ('auto', 'cpu'):
        return False
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (x, weight, bias, shortcut)):
        return False
    if x.device.type != 'cpu' or weight is None or mean is None or x.ndim != 4:
        return False
    if shortcut is not None and (shortcut.shape != x.shape or shortcut.dtype != x.dtype):
        return False
    wanted = torch.float64 if x.dtype == torch.float64 else torch.float32
    return weight.dtype == mean.dtype == wanted and _is_dense(x) and _has_kernel()


def run_compiled(*args) -> None:
    """The compiled kernel, with the arguments of :func:`batch_norm_relu_`, for callers that asked for it."""
    torch.ops.icconv_mm.batch_norm_relu__compiled.default(*args)  # is there only after the library is


def _is_dense(x: Tensor) -> bool:
    return x.is_contiguous(memory_format=torch.channels_last) or x.is_contiguous()


@cache
def _has_kernel() -> bool:
    """Whether the compiled library is there, and has it."""
    return backend.missing_kernel('batch_norm_relu__compiled', 'cpu') is None


def _reference(x, weight, bias, mean, var, eps, shortcut=None, relu=False):
    scale = weight / (var + eps).sqrt()
    x.mul_(scale[:, None, None]).add_((bias - mean * scale)[:, None, None])
    if shortcut is not None:
        x += shortcut
    if relu:
        x.relu_()


def _refusal(x, *_) -> str | None:
    if reason := off_device((x,), 'cpu'):
        return reason
    if not _is_dense(x):
        return f'it takes dense maps, got strides {x.stride()}'
    return None


_operator = define(
    'batch_norm_relu_',
    '(Tensor(a!) x, Tensor weight, Tensor bias, Tensor mean, Tensor var, float eps, Tensor? shortcut, bool relu) -> ()',
    _reference,
    fake=lambda *_: None,
    autograd=without_gradient,
    kernels={'cpu': backend.Limits(_refusal)},
)
