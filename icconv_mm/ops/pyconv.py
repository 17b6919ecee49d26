"""Pyramidal convolution: parallel convolutions of several kernel sizes and groups on one input.

PyConv, https://arxiv.org/abs/2006.11538, section 3: level l has its own kernel size and number of groups. Larger
kernels have more groups, so that the whole costs about what one convolution does. All levels see the same input; their
outputs are concatenated over the channels. The padding is ``dilation * (kernel // 2)``, so they are of one size.

:mod:`icconv_mm.ops.trilinear` derives its gradients.
"""

from collections.abc import Sequence
from functools import partial

import torch.nn.functional as F
from torch import Tensor

from icconv_mm.ops import dense_convolution, limits_cpu, limits_cuda
from icconv_mm.ops import pyconv_reference as reference
from icconv_mm.ops.fast_call import define_backward, fast_call
from icconv_mm.ops.operator import FastCall, define, is_traced, written_out
from icconv_mm.ops.tensors import check_tensors, empty
from icconv_mm.ops.trilinear import Form, derivative, flops, shapes_of
from icconv_mm.patterns.pattern import MAX_DILATION


def pyconv2d(
    x: Tensor,
    weights: Sequence[Tensor],
    bias: Tensor | None,
    groups: Sequence[int],
    stride: int = 1,
    dilation: int = 1,
) -> Tensor:
    """Pyramidal convolution, differentiable to any order.

    Args:
        x: Input ``[N, C_in, H, W]``, contiguous or channels_last (the output then is, too).
        weights: The filters of each level, ``[C_l, C_in / groups_l, kh_l, kw_l]``; the sides of a kernel are odd.
        bias: ``[C_out]``, C_out being the sum of all C_l, or None.
        groups: Groups of each level, as in ``torch.nn.functional.conv2d``.
        stride: Stride of all levels on both axes; 1 by default.
        dilation: Dilation of all levels on both axes; 1 by default.

    Returns:
        ``[N, C_out, ceil(H / stride), ceil(W / stride)]``, the levels in order.

    Raises:
        ValueError: If shapes and groups do not fit or a kernel is even; the message names the level and the numbers.

    Example:
        >>> x, weights = torch.randn(1, 8, 32, 32), [torch.randn(4, 8, 3, 3), torch.randn(4, 4, 5, 5)]
        >>> pyconv2d(x, weights, bias=None, groups=[1, 2], stride=2).shape
        torch.Size([1, 8, 16, 16])
    """
    weights, groups = list(weights), tuple(groups)
    if len(weights) > 1:  # a single level is torch's own convolution
        out = fast_call('pyconv2d', (groups, stride, dilation), x, weights, bias)
        if out is not None:
            return out
    groups = [int(group) for group in groups]
    if is_traced():
        return written_out(reference.forward, check_call, x, weights, bias, groups, stride, dilation)
    check_call(x, weights, bias, groups, stride, dilation)
    if len(weights) == 1 and dense_convolution.is_trusted(x, stride):  # torch has the best kernel
        padding = reference.padding(weights[0].shape[2:], dilation)
        return F.conv2d(x, weights[0], bias, stride, padding, dilation, groups[0])
    return _output(x, weights, bias, groups, stride, dilation)


def check_call(
    x: Tensor, weights: Sequence[Tensor], bias: Tensor | None, groups: Sequence[int], stride: int, dilation: int
) -> None:
    """Raise ValueError unless these are arguments of a pyramidal convolution."""
    if x.dim() != 4:
        raise ValueError(f'x must have the shape [N, C_in, H, W], got {list(x.shape)}')
    if not weights or len(weights) != len(groups):
        raise ValueError(f'weights and groups must have one entry per level, got {len(weights)} and {len(groups)}')
    if not 1 <= min(stride, dilation) <= max(stride, dilation) <= MAX_DILATION:
        raise ValueError(f'stride and dilation must be in 1..{MAX_DILATION}, got stride={stride}, dilation={dilation}')
    if x.shape[1] < 1:
        raise ValueError(f'x must have at least one channel, got {list(x.shape)}')
    for level, (weight, group) in enumerate(zip(weights, groups)):
        _check_level(f'level {level}', x, weight, group)
    out_channels = sum(weight.shape[0] for weight in weights)
    if bias is not None and tuple(bias.shape) != (out_channels,):
        raise ValueError(f'bias must have the shape [{out_channels}], got {list(bias.shape)}')
    levels = {f'the weight of level {level}': weight for level, weight in enumerate(weights)}
    check_tensors({'x': x, **levels, 'bias': bias})


def _check_level(name, x, weight, group):
    if weight.dim() != 4:
        raise ValueError(f'{name}: weight must have the shape [C, C_in / groups, kh, kw], got {list(weight.shape)}')
    if any(side % 2 == 0 for side in weight.shape[2:]):
        raise ValueError(f'{name}: the sides of the kernel must be odd, got {tuple(weight.shape[2:])}')
    if group < 1 or x.shape[1] != weight.shape[1] * group or weight.shape[0] % group:
        raise ValueError(
            f'{name}: x {list(x.shape)} and weight {list(weight.shape)} do not fit {group} groups: expected x with '
            f'{weight.shape[1] * group} channels and weight with a multiple of {group} filters'
        )


def _output_fake(x, weights, bias, groups, stride, dilation):
    height, width = ((size - 1) // stride + 1 for size in x.shape[2:])
    return empty((x.shape[0], sum(weight.shape[0] for weight in weights), height, width), like=x)


def _grad_input_fake(grad, weights, size, groups, stride, dilation):
    return empty((grad.shape[0], weights[0].shape[1] * groups[0], *size), like=grad)


def _grad_weight_fake(grad, x, shapes, groups, stride, dilation):
    return [grad.new_empty(shape) for shape in reference.level_shapes(shapes, x.shape[1], groups)]


_derivative = partial(
    derivative,
    Form(
        lambda x, weights, call, bias=None: _output(x, list(weights), bias, *call),
        lambda grad, weights, size, call: _grad_input(grad, list(weights), size, *call),
        lambda grad, x, shapes, call: _grad_weight(grad, x, shapes, *call),
    ),
)
FAST_CALL = FastCall('pyramidal', filters=list, shapes=lambda weights: (shapes_of(weights),))
OUTPUT = dict(  # with ReLU as well
    schema='(Tensor x, Tensor[] weights, Tensor? bias, int[] groups, int stride, int dilation) -> Tensor',
    fake=_output_fake,
    autocast=True,
    flops=lambda x, weights, *_, out_shape, **__: flops(out_shape, weights),
    layout_of=0,
    kernels={'cpu': limits_cpu.PYCONV, 'cuda': limits_cuda.PYCONV_OUTPUT},
)
_output = define(
    'pyconv2d',
    reference=reference.forward,
    autograd=lambda _, x, weights, bias, *call: _derivative(call, x=x, weights=weights, bias=bias),
    fast_call=FAST_CALL,
    **OUTPUT,
)
_grad_input = define(
    'pyconv2d_grad_input',
    '(Tensor grad, Tensor[] weights, SymInt[] size, int[] groups, int stride, int dilation) -> Tensor',
    reference.grad_input,
    fake=_grad_input_fake,
    autograd=lambda _, grad, weights, size, *call: _derivative(call, grad=grad, weights=weights, sizes=size),
    flops=lambda grad, weights, *_, **__: flops(grad, weights),
    layout_of=0,
    kernels={'cpu': limits_cpu.PYCONV, 'cuda': limits_cuda.PYCONV_GRAD_INPUT},
)
_grad_weight = define(
    'pyconv2d_grad_weight',
    '(Tensor grad, Tensor x, SymInt[] shapes, int[] groups, int stride, int dilation) -> Tensor[]',
    reference.grad_weight,
    fake=_grad_weight_fake,
    autograd=lambda _, grad, x, shapes, *call: list(_derivative(call, grad=grad, x=x, sizes=shapes)),
    flops=lambda grad, *_, out_shape, **__: flops(grad, out_shape),
    kernels={'cpu': limits_cpu.PYCONV, 'cuda': limits_cuda.PYCONV_GRAD_WEIGHT},
)
define_backward(
    'pyconv2d',
    'Tensor[] weights, int[] groups, int stride, int dilation',
    _grad_input,
    lambda grad, x, weights, *call: _grad_weight(grad, x, shapes_of(weights), *call),
)
