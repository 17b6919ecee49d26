"""The sum of a level of a pyramid and of the next coarser one upsampled, in one pass over memory."""

import torch
import torch.nn.functional as F
from torch import Tensor

from icconv_mm.ops.dispatch import Kernel, register, run
from icconv_mm.ops.tensors import FLOAT_DTYPES, device_refusal, mixture_refusal
from icconv_mm.torch_private import below_autograd, in_transform_or_mode, is_jit_or_onnx_tracing


def pyramid_sum(same: Tensor, coarser: Tensor, finer: Tensor | None = None) -> Tensor:
    """``same + finer + upsample(coarser)``, bilinear with aligned corners; with gradients of any order.

    The last step of a pyramid convolution (:class:`icconv_mm.layers.PConvLayer`). torch makes a map for each addition;
    the compiled kernel reads its inputs once and writes the sum.

    Args:
        same: ``[N, C, H, W]``, the part of the same level.
        coarser: ``[N, C, h, w]``.
        finer: ``[N, C, H, W]`` or None: the part of the finer level, already of this level's size.

    Returns:
        ``[N, C, H, W]``, a new map of the dtype of ``own``.
    """
    if in_transform_or_mode() or is_jit_or_onnx_tracing():
        return reference(same, coarser, finer)
    return run('pyramid_sum', same, coarser, finer)


# --- the reference, in torch's own steps


def reference(same: Tensor, coarser: Tensor, finer: Tensor | None = None) -> Tensor:
    """``[N, C, H, W]``, ``[N, C, h, w]``, ``[N, C, H, W]`` -> ``[N, C, H, W]``."""
    y = same if finer is None else same + finer
    upsampled = F.interpolate(coarser, y.shape[-2:], mode='bilinear', align_corners=True)
    return y + upsampled.to(y.dtype)  # autocast interpolates in float32 where it has no other kernel


# --- the compiled kernel: its gradient and its rules


def _compiled(same, coarser, finer=None):
    if torch.is_grad_enabled():
        return _PyramidSum.apply(same, coarser, finer)
    return _compiled_sum(same, coarser, finer)


def _compiled_sum(*args):
    with below_autograd():
        return torch.ops.icconv_mm.pyramid_sum_compiled.default(*args)


class _PyramidSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx, same, coarser, finer):
        ctx.size = coarser.shape
        return _compiled_sum(same, coarser, finer)

    @staticmethod
    def backward(ctx, grad):
        need_own, need_coarser, need_finer = ctx.needs_input_grad
        to_coarser = None
        if need_coarser:  # torch's own, which has a gradient in turn
            backward = torch.ops.aten.upsample_bilinear2d_backward.default
            to_coarser = backward(grad, list(grad.shape[-2:]), list(ctx.size), True, None, None)
        return grad if need_own else None, to_coarser, grad if need_finer else None


def _refusal(same: Tensor, coarser: Tensor, finer: Tensor | None = None) -> str | None:
    maps = [same, coarser] if finer is None else [same, coarser, finer]
    if reason := device_refusal(maps, 'cpu') or mixture_refusal(maps, 'maps'):
        return reason
    if same.dtype not in FLOAT_DTYPES:
        return f'it needs floating-point maps, got {same.dtype}'
    if coarser.numel() == 0:
        return 'it needs levels that are not empty'
    return None


def _objection(same: Tensor, *_) -> str | None:
    return f'in {same.dtype} the reference is faster' if same.dtype in (torch.float16, torch.bfloat16) else None


# the dispatcher of `torch.library` would add some microseconds to each call, ten where a gradient is recorded
register('pyramid_sum', reference, {'cpu': Kernel(_refusal, _objection)}, compiled=_compiled)
