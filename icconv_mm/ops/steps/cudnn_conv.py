"""An ordinary convolution in inference on a GPU, with what follows it: one kernel of cuDNN.

torch computes a convolution with bias, the addition of a shortcut and ReLU as four kernels, each of which passes over
the map. cuDNN has them as one, which torch offers as ``cudnn_convolution_relu`` and ``cudnn_convolution_add_relu``.
Their reference is what :class:`icconv_mm.layers.inference_conv.InferenceConv2d` does everywhere else.
"""

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from icconv_mm.ops.common.tensors import is_autocast
from icconv_mm.ops.steps.own_choice import computes_convolutions, is_recorded

_DEVICE = 'cuda'


def has_cudnn_conv_kernel(weight: Tensor, *maps: Tensor) -> bool:
    """Whether the functions below may run with such tensors, and nothing looks at the single steps.

    For a weight of which :func:`is_fused_by_cudnn` says that cuDNN serves it. A choice of its own, as it is torch's
    operator that runs.
    """
    if is_recorded(weight, *maps) or is_autocast(_DEVICE) or not torch.backends.cudnn.enabled:
        return False
    return all(_is_map(x) and x.dtype == weight.dtype for x in maps)


def _is_map(x: Tensor) -> bool:
    return type(x) is Tensor and x.ndim == 4 and x.numel() > 0 and x.device.type == _DEVICE


def cudnn_conv2d_relu(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int = 1,
) -> Tensor:
    """``relu(F.conv2d(x))`` without gradient.

    Args:
        x: ``[N, C_in, H, W]``, not empty.
        weight: ``[C_out, C_in / groups, k_h, k_w]`` of the dtype of x.
        bias: ``[C_out]`` or None.
        stride, padding, dilation: Two numbers each, vertical and horizontal.
        groups: Groups of channels.

    Returns:
        ``[N, C_out, H', W']``.
    """
    return torch.cudnn_convolution_relu(x, weight, bias, stride, padding, dilation, groups)


def cudnn_conv2d_add_relu(
    x: Tensor,
    z: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int = 1,
) -> Tensor:
    """``relu(F.conv2d(x) + z)`` without gradient.

    Args:
        x, weight, bias, stride, padding, dilation, groups: The arguments of :func:`cudnn_conv2d_relu`.
        z: ``[N, C_out, H', W']`` of the dtype of x.

    Returns:
        ``[N, C_out, H', W']``.
    """
    return torch.cudnn_convolution_add_relu(x, weight, z, 1.0, bias, stride, padding, dilation, groups)


def is_fused_by_cudnn(weight: Tensor) -> bool:
    """Whether a weight is on a GPU whose cuDNN computes what it must for the weight's dtype."""
    return weight.device.type == _DEVICE and _fuses(weight.device, weight.dtype)


@cache
def _fuses(device: torch.device, dtype: torch.dtype) -> bool:
    return torch.backends.cudnn.is_available() and computes_convolutions('cuDNN', _forms, device, dtype)


def _forms(x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, ...]:
    settings = weight, bias, (1, 1), (1, 1), (1, 1)
    return cudnn_conv2d_relu(x, *settings), cudnn_conv2d_add_relu(x, x, *settings)
