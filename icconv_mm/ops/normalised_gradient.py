"""The gradient of a normalisation for its input, given the sums that its statistics depend on."""

import torch
from torch import Tensor

from icconv_mm.ops.backend import Limits
from icconv_mm.ops.operator import define
from icconv_mm.ops.tensors import memory_format, off_device


def normalised_gradient(grad: Tensor, x: Tensor, mean: Tensor, scale: Tensor, slope: Tensor, shift: Tensor) -> Tensor:
    """``scale * grad + slope * (x - mean) + shift``, without derivatives.

    The last step of the backward pass of a batch norm over more than one tensor: torch's own takes the sums over the
    one tensor it is given. The compiled CPU kernel passes over memory once, the reference twice.

    Args:
        grad, x: ``[N, C, H, W]`` of one dtype.
        mean, scale, slope, shift: ``[C]``, float32 (float64 for float64).

    Returns:
        ``[N, C, H, W]`` of the dtype of x, channels_last where x is, else contiguous.

    Raises:
        RuntimeError: From the compiled kernel, if shapes or dtypes do not fit; it names those found.
    """
    return _operator(grad, x, mean, scale, slope, shift)


def _reference(grad, x, mean, scale, slope, shift):
    rest = torch.batch_norm(x, slope, shift, mean, torch.ones_like(mean), False, 0.0, 0.0, False)
    return rest.addcmul_(grad, scale[:, None, None].to(grad.dtype))


def _refusal(grad, x, *_) -> str | None:
    if reason := off_device((grad, x), 'cpu'):
        return reason
    if grad.dtype != x.dtype:
        return f'it takes tensors of one dtype, got {grad.dtype} and {x.dtype}'
    return None


_operator = define(
    'normalised_gradient',
    '(Tensor grad, Tensor x, Tensor mean, Tensor scale, Tensor slope, Tensor shift) -> Tensor',
    _reference,
    fake=lambda grad, x, *_: torch.empty_like(x, memory_format=memory_format(x)),
    layout_of=1,
    kernels={'cpu': Limits(_refusal)},
)
