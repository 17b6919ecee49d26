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
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, dilation: Sequence[int], groups: int
) -> Tensor:
    """``F.conv2d`` that keeps the size but for its stride, in float32 where bfloat16 cannot be trusted.

    ``[N, C_in, H, W]``, ``[C_out, C_in / groups, kh, kw]``, ``[C_out]`` -> ``[N, C_out, H', W']``; kernels are odd.
    """
    settings = stride, _padding(weight, dilation), dilation, groups
    if x.dtype == torch.bfloat16 and not is_trusted(x, stride):
        bias = None if bias is None else bias.float()
        return F.conv2d(x.float(), weight.float(), bias, *settings).to(x.dtype)
    return F.conv2d(x, weight, bias, *settings)


def grad_input(
    grad: Tensor, shape: Sequence[int], weight: Tensor, stride: int, dilation: Sequence[int], groups: int
) -> Tensor:
    """The gradient for an input of this shape: ``[N, C_out, H', W']`` and the weight -> ``[N, C_in, H, W]``."""
    return _backward(grad, grad.new_empty(1).expand(shape), weight, stride, dilation, groups, 0)


def grad_weight(
    grad: Tensor, x: Tensor, shape: Sequence[int], stride: int, dilation: Sequence[int], groups: int
) -> Tensor:
    """The gradient for a weight of this shape: ``[N, C_out, H', W']`` and the input -> that of the weight."""
    return _backward(grad, x, grad.new_empty(1).expand(shape), stride, dilation, groups, 1)


def _backward(grad, x, weight, stride, dilation, groups, index):
    dtype = grad.dtype
    if dtype == torch.bfloat16 and not is_trusted(x, stride):
        grad, x, weight = grad.float(), x.float(), weight.float()
    no_bias, transposed, output_padding = None, False, (0, 0)
    settings = (stride, stride), _padding(weight, dilation), dilation, transposed, output_padding, groups
    mask = [index == 0, index == 1, False]
    return torch.ops.aten.convolution_backward(grad, x, weight, no_bias, *settings, mask)[index].to(dtype)


def _padding(weight, dilation):
    return tuple(int(side) // 2 * step for side, step in zip(weight.shape[2:], dilation))  # int: traces have tensors
