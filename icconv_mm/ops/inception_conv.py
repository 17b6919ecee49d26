"""Inception convolution: a 3x3 convolution in which every output channel has its own dilation.

IC-Conv, https://arxiv.org/abs/2012.13587, section 3.1: output channel i is the convolution of the input with its 3x3
filter at dilation (d_h, d_w)(i). The padding equals the dilation, so the output has the size, and the computation the
cost, of the dense convolution.

The operator is linear in the input and in the weight, and so are the two that its gradients need. With the trilinear
form T(x, w, g) = <g, conv(x, w)>, the three are its partial derivatives: ``inception_conv2d(x, w)`` for g,
``inception_conv2d_grad_input(g, w)`` for x, ``inception_conv2d_grad_weight(g, x)`` for w. The gradient of each is made
of the other two, which gives derivatives of any order.
"""

import warnings
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from icconv_mm.ops import backend, dense_convolution, inception_conv_flops
from icconv_mm.ops import inception_conv_reference as reference
from icconv_mm.ops.autocast import lower
from icconv_mm.ops.checks import check_tensors
from icconv_mm.patterns import DilationPattern

_library = torch.library.Library('icconv_mm', 'FRAGMENT')
_library.define(
    'inception_conv2d(Tensor x, Tensor weight, Tensor? bias, int[] pattern, int stride, int groups) -> Tensor'
)
_library.define(
    'inception_conv2d_grad_input(Tensor grad, Tensor weight, SymInt height, SymInt width, int[] pattern, int stride, '
    'int groups) -> Tensor'
)
_library.define('inception_conv2d_grad_weight(Tensor grad, Tensor x, int[] pattern, int stride, int groups) -> Tensor')
_ops = torch.ops.icconv_mm


def inception_conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    pattern: DilationPattern | Iterable[tuple[int, int, int]],
    stride: int = 1,
    groups: int = 1,
) -> Tensor:
    """Inception convolution, differentiable to any order.

    Args:
        x: Input ``[N, C_in, H, W]``, contiguous or channels_last (the output then is, too).
        weight: Filters ``[C_out, C_in / groups, 3, 3]``, those of the dense convolution.
        bias: ``[C_out]`` or None.
        pattern: A table of runs ``(out_channels, dilation_h, dilation_w)`` in the order of the output channels, which
            sums to ``C_out``.
        stride: Of both axes.
        groups: Of the channels, as in ``torch.nn.functional.conv2d``. A run may end inside a group.

    Returns:
        ``[N, C_out, ceil(H / stride), ceil(W / stride)]``.

    Raises:
        ValueError: If shapes, groups and pattern do not fit; the message says what was got and what was expected.
    """
    pattern = DilationPattern.of(pattern)
    if torch.jit.is_tracing() or torch.onnx.is_in_onnx_export():
        # a trace is for runtimes and FLOP counters that know ordinary convolutions only
        with warnings.catch_warnings():  # of constants in the trace: the numbers of channels, which they are
            warnings.simplefilter('ignore', torch.jit.TracerWarning)
            check_call(x, weight, bias, pattern, stride, groups)
            return reference.forward(x, weight, bias, pattern.flat, stride, groups)
    check_call(x, weight, bias, pattern, stride, groups)
    if len(pattern) == 1 and dense_convolution.is_trusted(x, stride):  # torch has the best kernel
        dilation = pattern.runs[0][1:]
        return F.conv2d(x, weight, bias, stride, dilation, dilation, groups)
    return _ops.inception_conv2d(x, weight, bias, pattern.flat, stride, groups)


def check_call(x, weight, bias, pattern, stride, groups) -> None:
    """Raise ValueError unless these are arguments of an inception convolution."""
    if x.dim() != 4:
        raise ValueError(f'x must have the shape [N, C_in, H, W], got {list(x.shape)}')
    if weight.dim() != 4 or tuple(weight.shape[2:]) != (3, 3):
        raise ValueError(f'weight must have the shape [C_out, C_in / groups, 3, 3], got {list(weight.shape)}')
    if stride < 1 or groups < 1:
        raise ValueError(f'stride and groups must be at least 1, got stride={stride}, groups={groups}')
    if x.shape[1] != weight.shape[1] * groups or weight.shape[0] % groups:
        raise ValueError(
            f'x {list(x.shape)} and weight {list(weight.shape)} do not fit {groups} groups: expected x with '
            f'{weight.shape[1] * groups} channels and weight with a multiple of {groups} filters'
        )
    if pattern.out_channels != weight.shape[0]:
        raise ValueError(f'the pattern sums to {pattern.out_channels} channels, weight has {weight.shape[0]} filters')
    if bias is not None and tuple(bias.shape) != (weight.shape[0],):
        raise ValueError(f'bias must have the shape [{weight.shape[0]}], got {list(bias.shape)}')
    check_tensors({'x': x, 'weight': weight, 'bias': bias})


# --- kernels


def _forward_kernel(x, weight, bias, pattern, stride, groups):
    out = backend.run('inception_conv2d', x, weight, bias, pattern, stride, groups)
    return out.contiguous(memory_format=reference.memory_format(x))


def _grad_input_kernel(grad, weight, height, width, pattern, stride, groups):
    out = backend.run('inception_conv2d_grad_input', grad, weight, (height, width), pattern, stride, groups)
    return out.contiguous(memory_format=reference.memory_format(grad))


def _grad_weight_kernel(grad, x, pattern, stride, groups):
    return backend.run('inception_conv2d_grad_weight', grad, x, pattern, stride, groups).contiguous()


_library.impl('inception_conv2d', _forward_kernel, 'CompositeExplicitAutograd')
_library.impl('inception_conv2d_grad_input', _grad_input_kernel, 'CompositeExplicitAutograd')
_library.impl('inception_conv2d_grad_weight', _grad_weight_kernel, 'CompositeExplicitAutograd')

backend.register('inception_conv2d', 'reference', reference.forward)
backend.register('inception_conv2d_grad_input', 'reference', reference.grad_input)
backend.register('inception_conv2d_grad_weight', 'reference', reference.grad_weight)

# --- fake kernels


def _forward_fake(x, weight, bias, pattern, stride, groups):
    height, width = ((size - 1) // stride + 1 for size in x.shape[2:])
    return _empty((x.shape[0], weight.shape[0], height, width), like=x)


def _grad_input_fake(grad, weight, height, width, pattern, stride, groups):
    return _empty((grad.shape[0], weight.shape[1] * groups, height, width), like=grad)


def _grad_weight_fake(grad, x, pattern, stride, groups):
    return grad.new_empty((grad.shape[1], x.shape[1] // groups, 3, 3))


def _empty(shape, like: Tensor) -> Tensor:
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=reference.memory_format(like))


# the dispatch key of fake tensors; `torch.library.register_fake` came with torch 2.4
_library.impl('inception_conv2d', _forward_fake, 'Meta')
_library.impl('inception_conv2d_grad_input', _grad_input_fake, 'Meta')
_library.impl('inception_conv2d_grad_weight', _grad_weight_fake, 'Meta')

# --- gradients


class _Forward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, pattern, stride, groups):
        ctx.save_for_backward(x, weight)
        ctx.call = tuple(pattern), stride, groups
        ctx.backend = backend.requested()
        with torch._C._AutoDispatchBelowAutograd():
            return _ops.inception_conv2d(x, weight, bias, pattern, stride, groups)

    @staticmethod
    def backward(ctx, grad):
        x, weight = ctx.saved_tensors
        need_x, need_weight, need_bias, *_ = ctx.needs_input_grad
        # autograd may run this on another thread, which knows nothing of the caller's `use_backend`
        with backend.use_backend(ctx.backend):
            grad_x = _ops.inception_conv2d_grad_input(grad, weight, *x.shape[2:], *ctx.call) if need_x else None
            grad_weight = _ops.inception_conv2d_grad_weight(grad, x, *ctx.call) if need_weight else None
        return grad_x, grad_weight, grad.sum((0, 2, 3)) if need_bias else None, None, None, None


class _GradInput(torch.autograd.Function):
    @staticmethod
    def forward(ctx, grad, weight, height, width, pattern, stride, groups):
        ctx.save_for_backward(grad, weight)
        ctx.call = tuple(pattern), stride, groups
        ctx.backend = backend.requested()
        with torch._C._AutoDispatchBelowAutograd():
            return _ops.inception_conv2d_grad_input(grad, weight, height, width, pattern, stride, groups)

    @staticmethod
    def backward(ctx, outer):
        grad, weight = ctx.saved_tensors
        need_grad, need_weight, *_ = ctx.needs_input_grad
        with backend.use_backend(ctx.backend):
            to_grad = _ops.inception_conv2d(outer, weight, None, *ctx.call) if need_grad else None
            to_weight = _ops.inception_conv2d_grad_weight(grad, outer, *ctx.call) if need_weight else None
        return to_grad, to_weight, None, None, None, None, None


class _GradWeight(torch.autograd.Function):
    @staticmethod
    def forward(ctx, grad, x, pattern, stride, groups):
        ctx.save_for_backward(grad, x)
        ctx.call = tuple(pattern), stride, groups
        ctx.backend = backend.requested()
        with torch._C._AutoDispatchBelowAutograd():
            return _ops.inception_conv2d_grad_weight(grad, x, pattern, stride, groups)

    @staticmethod
    def backward(ctx, outer):
        grad, x = ctx.saved_tensors
        need_grad, need_x, *_ = ctx.needs_input_grad
        with backend.use_backend(ctx.backend):
            to_grad = _ops.inception_conv2d(x, outer, None, *ctx.call) if need_grad else None
            to_x = _ops.inception_conv2d_grad_input(grad, outer, *x.shape[2:], *ctx.call) if need_x else None
        return to_grad, to_x, None, None, None


def _forward_autograd(*args):
    if not torch.is_grad_enabled():  # the same without the cost of preparing a gradient
        with torch._C._AutoDispatchBelowAutograd():
            return _ops.inception_conv2d(*args)
    return _Forward.apply(*args)


_library.impl('inception_conv2d', _forward_autograd, 'Autograd')
_library.impl('inception_conv2d_grad_input', lambda *args: _GradInput.apply(*args), 'Autograd')
_library.impl('inception_conv2d_grad_weight', lambda *args: _GradWeight.apply(*args), 'Autograd')

# --- autocast


def _autocast_rule(device: str):
    def rule(x, weight, bias, pattern, stride, groups):
        with torch.autocast(device, enabled=False):
            x, weight, bias = lower([x, weight, bias], device)
            return _ops.inception_conv2d(x, weight, bias, pattern, stride, groups)

    return rule


_library.impl('inception_conv2d', _autocast_rule('cpu'), 'AutocastCPU')
_library.impl('inception_conv2d', _autocast_rule('cuda'), 'AutocastCUDA')

inception_conv_flops.register(
    _ops.inception_conv2d, _ops.inception_conv2d_grad_input, _ops.inception_conv2d_grad_weight
)
