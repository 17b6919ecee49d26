"""torch's own convolution, of which the references are made, where it can be trusted."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def is_trusted(x: Tensor, stride: int) -> bool:
    """Whether torch's convolution of this input, ``[N, C, H, W]``, is right in every dtype.

    torch 2.11 on CPUs, bfloat16: with a stride and one column of outputs, the output may be wrong, and the gradient of
    the weight is uninitialised memory for taps that meet no pixel.
    """
    return stride == 1 or x.device.type != 'cpu' or x.shape[-1] > stride


def forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: int,
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Tensor:
    """``F.conv2d``, in float32 where bfloat16 cannot be trusted.

    ``[N, C_in, H, W]``, ``[C_out, C_in / groups, kh, kw]``, ``[C_out]`` -> ``[N, C_out, H', W']``; padding in pixels.
    """
    if x.dtype == torch.bfloat16 and not is_trusted(x, stride):
        bias = None if bias is None else bias.float()
        return F.conv2d(x.float(), weight.float(), bias, stride, padding, dilation, groups).to(x.dtype)
    return F.conv2d(x, weight, bias, stride, padding, dilation, groups)


def backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    stride: int,
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    mask: tuple[bool, bool],
) -> tuple[Tensor | None, Tensor | None]:
    """The gradients for the input and for the weight where ``mask`` asks for them, else None.

    ``[N, C_out, H', W']``, ``[N, C_in, H, W]``, ``[C_out, C_in / groups, kh, kw]`` -> those of ``x`` and ``weight``, of
    their shapes. Only the shape is read of ``x`` for its own gradient, and of ``weight`` for its own.
    """
    dtype = grad.dtype
    if dtype == torch.bfloat16 and not is_trusted(x, stride):
        grad, x, weight = grad.float(), x.float(), weight.float()
    no_bias, transposed, output_padding = None, False, (0, 0)
    arguments = (stride, stride), padding, dilation, transposed, output_padding, groups, (*mask, False)
    gradients = torch.ops.aten.convolution_backward(grad, x, weight, no_bias, *arguments)[:2]
    return tuple(gradient if gradient is None else gradient.to(dtype) for gradient in gradients)
