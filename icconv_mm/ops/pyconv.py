"""Pyramidal convolution: parallel convolutions of several kernel sizes and groups on one input.

PyConv, https://arxiv.org/abs/2006.11538, section 3: level l has its own kernel size and number of groups. Larger
kernels have more groups, so that the whole costs about what one convolution does. All levels see the same input; their
outputs are concatenated over the channels. The padding is ``dilation * (kernel // 2)``, so they are of one size.

As in ``inception_conv``, the operator is linear in the input and in the weights, and so are the two that its gradients
need: the gradient of each of the three is made of the other two, which gives derivatives of any order.
"""

import warnings
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from icconv_mm.ops import backend, dense_convolution, pyconv_flops
from icconv_mm.ops import pyconv_reference as reference
from icconv_mm.ops.autocast import lower
from icconv_mm.ops.checks import check_tensors

_library = torch.library.Library('icconv_mm', 'FRAGMENT')
_library.define('pyconv2d(Tensor x, Tensor[] weights, Tensor? bias, int[] groups, int stride, int dilation) -> Tensor')
_library.define(
    'pyconv2d_grad_input(Tensor grad, Tensor[] weights, SymInt height, SymInt width, int[] groups, int stride, '
    'int dilation) -> Tensor'
)
_library.define(
    'pyconv2d_grad_weight(Tensor grad, Tensor x, SymInt[] shapes, int[] groups, int stride, int dilation) -> Tensor[]'
)
_ops = torch.ops.icconv_mm


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
        groups: Of each level, as in ``torch.nn.functional.conv2d``.
        stride: Of all levels and both axes.
        dilation: Of all levels and both axes.

    Returns:
        ``[N, C_out, ceil(H / stride), ceil(W / stride)]``, the levels in order.

    Raises:
        ValueError: If shapes and groups do not fit or a kernel is even; the message names the level and the numbers.
    """
    weights, groups = list(weights), [int(group) for group in groups]
    if torch.jit.is_tracing() or torch.onnx.is_in_onnx_export():
        # a trace is for runtimes and FLOP counters that know ordinary convolutions only
        with warnings.catch_warnings():  # of constants in the trace: the numbers of channels, which they are
            warnings.simplefilter('ignore', torch.jit.TracerWarning)
            check_call(x, weights, bias, groups, stride, dilation)
            return reference.forward(x, weights, bias, groups, stride, dilation)
    check_call(x, weights, bias, groups, stride, dilation)
    if len(weights) == 1 and dense_convolution.is_trusted(x, stride):  # torch has the best kernel
        padding = reference.padding(weights[0].shape[2:], dilation)
        return F.conv2d(x, weights[0], bias, stride, padding, dilation, groups[0])
    return _ops.pyconv2d(x, weights, bias, groups, stride, dilation)


def check_call(x, weights, bias, groups, stride, dilation) -> None:
    """Raise ValueError unless these are arguments of a pyramidal convolution."""
    if x.dim() != 4:
        raise ValueError(f'x must have the shape [N, C_in, H, W], got {list(x.shape)}')
    if not weights or len(weights) != len(groups):
        raise ValueError(f'weights and groups must have one entry per level, got {len(weights)} and {len(groups)}')
    if stride < 1 or dilation < 1:
        raise ValueError(f'stride and dilation must be at least 1, got stride={stride}, dilation={dilation}')
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


# --- kernels


def _forward_kernel(x, weights, bias, groups, stride, dilation):
    out = backend.run('pyconv2d', x, weights, bias, groups, stride, dilation)
    return out.contiguous(memory_format=reference.memory_format(x))


def _grad_input_kernel(grad, weights, height, width, groups, stride, dilation):
    out = backend.run('pyconv2d_grad_input', grad, weights, (height, width), groups, stride, dilation)
    return out.contiguous(memory_format=reference.memory_format(grad))


def _grad_weight_kernel(grad, x, shapes, groups, stride, dilation):
    out = backend.run('pyconv2d_grad_weight', grad, x, shapes, groups, stride, dilation)
    return [each.contiguous() for each in out]


_library.impl('pyconv2d', _forward_kernel, 'CompositeExplicitAutograd')
_library.impl('pyconv2d_grad_input', _grad_input_kernel, 'CompositeExplicitAutograd')
_library.impl('pyconv2d_grad_weight', _grad_weight_kernel, 'CompositeExplicitAutograd')

backend.register('pyconv2d', 'reference', reference.forward)
backend.register('pyconv2d_grad_input', 'reference', reference.grad_input)
backend.register('pyconv2d_grad_weight', 'reference', reference.grad_weight)

# --- fake kernels


def _forward_fake(x, weights, bias, groups, stride, dilation):
    height, width = ((size - 1) // stride + 1 for size in x.shape[2:])
    return _empty((x.shape[0], sum(weight.shape[0] for weight in weights), height, width), like=x)


def _grad_input_fake(grad, weights, height, width, groups, stride, dilation):
    return _empty((grad.shape[0], weights[0].shape[1] * groups[0], height, width), like=grad)


def _grad_weight_fake(grad, x, shapes, groups, stride, dilation):
    return [grad.new_empty(shape) for shape in reference.level_shapes(shapes, x.shape[1], groups)]


def _empty(shape, like: Tensor) -> Tensor:
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=reference.memory_format(like))


_library.impl('pyconv2d', _forward_fake, 'Meta')
_library.impl('pyconv2d_grad_input', _grad_input_fake, 'Meta')
_library.impl('pyconv2d_grad_weight', _grad_weight_fake, 'Meta')

# --- gradients; the weights come last, because autograd sees tensors but not lists of them


class _Forward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, bias, groups, stride, dilation, *weights):
        ctx.save_for_backward(x, *weights)
        ctx.call = list(groups), stride, dilation
        ctx.backend = backend.requested()
        with torch._C._AutoDispatchBelowAutograd():
            return _ops.pyconv2d(x, list(weights), bias, *ctx.call)

    @staticmethod
    def backward(ctx, grad):
        x, *weights = ctx.saved_tensors
        need_x, need_bias, _, _, _, *need_weights = ctx.needs_input_grad
        grad_weights = [None] * len(weights)
        # autograd may run this on another thread, which knows nothing of the caller's `use_backend`
        with backend.use_backend(ctx.backend):
            grad_x = _ops.pyconv2d_grad_input(grad, weights, *x.shape[2:], *ctx.call) if need_x else None
            if any(need_weights):
                grad_weights = _ops.pyconv2d_grad_weight(grad, x, _shapes(weights), *ctx.call)
        return grad_x, grad.sum((0, 2, 3)) if need_bias else None, None, None, None, *grad_weights


class _GradInput(torch.autograd.Function):
    @staticmethod
    def forward(ctx, grad, height, width, groups, stride, dilation, *weights):
        ctx.save_for_backward(grad, *weights)
        ctx.call = list(groups), stride, dilation
        ctx.backend = backend.requested()
        with torch._C._AutoDispatchBelowAutograd():
            return _ops.pyconv2d_grad_input(grad, list(weights), height, width, *ctx.call)

    @staticmethod
    def backward(ctx, outer):
        grad, *weights = ctx.saved_tensors
        need_grad, _, _, _, _, _, *need_weights = ctx.needs_input_grad
        to_weights = [None] * len(weights)
        with backend.use_backend(ctx.backend):
            to_grad = _ops.pyconv2d(outer, weights, None, *ctx.call) if need_grad else None
            if any(need_weights):
                to_weights = _ops.pyconv2d_grad_weight(grad, outer, _shapes(weights), *ctx.call)
        return to_grad, None, None, None, None, None, *to_weights


class _GradWeight(torch.autograd.Function):
    @staticmethod
    def forward(ctx, grad, x, shapes, groups, stride, dilation):
        ctx.save_for_backward(grad, x)
        ctx.call = list(groups), stride, dilation
        ctx.backend = backend.requested()
        with torch._C._AutoDispatchBelowAutograd():
            return tuple(_ops.pyconv2d_grad_weight(grad, x, shapes, *ctx.call))

    @staticmethod
    def backward(ctx, *outers):
        grad, x = ctx.saved_tensors
        need_grad, need_x, *_ = ctx.needs_input_grad
        with backend.use_backend(ctx.backend):
            to_grad = _ops.pyconv2d(x, outers, None, *ctx.call) if need_grad else None
            to_x = _ops.pyconv2d_grad_input(grad, outers, *x.shape[2:], *ctx.call) if need_x else None
        return to_grad, to_x, None, None, None, None


def _shapes(weights) -> list[int]:
    return [number for weight in weights for number in (weight.shape[0], *weight.shape[2:])]


def _forward_autograd(x, weights, bias, groups, stride, dilation):
    if not torch.is_grad_enabled():  # the same without the cost of preparing a gradient
        with torch._C._AutoDispatchBelowAutograd():
            return _ops.pyconv2d(x, weights, bias, groups, stride, dilation)
    return _Forward.apply(x, bias, groups, stride, dilation, *weights)


def _grad_input_autograd(grad, weights, height, width, groups, stride, dilation):
    return _GradInput.apply(grad, height, width, groups, stride, dilation, *weights)


def _grad_weight_autograd(*args):
    return list(_GradWeight.apply(*args))


_library.impl('pyconv2d', _forward_autograd, 'Autograd')
_library.impl('pyconv2d_grad_input', _grad_input_autograd, 'Autograd')
_library.impl('pyconv2d_grad_weight', _grad_weight_autograd, 'Autograd')

# --- autocast


def _autocast_rule(device: str):
    def rule(x, weights, bias, groups, stride, dilation):
        with torch.autocast(device, enabled=False):
            x, weights, bias = lower([x, weights, bias], device)
            return _ops.pyconv2d(x, weights, bias, groups, stride, dilation)

    return rule


_library.impl('pyconv2d', _autocast_rule('cpu'), 'AutocastCPU')
_library.impl('pyconv2d', _autocast_rule('cuda'), 'AutocastCUDA')

pyconv_flops.register(_ops.pyconv2d, _ops.pyconv2d_grad_input, _ops.pyconv2d_grad_weight)
