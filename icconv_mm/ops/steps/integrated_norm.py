"""Integrated batch norm in training mode, for all levels of a pyramid at once."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from icconv_mm.ops.common.tensors import FLOAT_DTYPES, device_refusal, mixture_refusal
from icconv_mm.ops.dispatch.backend import Limits, register_function
from icconv_mm.ops.dispatch.proven_gpus import unproven
from icconv_mm.ops.reference import integrated_norm as reference
from icconv_mm.utils.torch_private import below_autograd, is_compiling

DTYPES = {'cpu': FLOAT_DTYPES, 'cuda': (torch.float32, torch.float16, torch.bfloat16)}
MAX_LEVELS = 16  # of the table that a launch takes


def integrated_norm(
    levels: Sequence[Tensor],
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    batches: Tensor | None,
    momentum: float,
    eps: float,
    relu: bool,
    *,
    group: 'torch.distributed.ProcessGroup | None' = None,
) -> list[Tensor]:
    """Batch norm with statistics of all pixels of all levels, then ReLU if wanted; once differentiable.

    On a GPU three launches serve all levels, and three their gradients; on the CPU two passes over memory serve each.

    Args:
        levels: ``[N, C, H_l, W_l]`` each, unchecked.
        weight, bias: ``[C]`` or None.
        running_mean, running_var, batches: Statistics ``[C]``, ``[C]`` and number of batches ``[]``, which change; or
            None.
        momentum: Share of this batch in the statistics.
        eps: What is added to the variance.
        relu: Whether negative values become zero.
        group: Processes that share the statistics. The reference serves such calls, and ``torch.compile``.

    Returns:
        Levels of the same shapes.
    """
    args = levels, weight, bias, running_mean, running_var, batches, momentum, eps, relu
    return reference.forward(*args, group=group) if group is not None or is_compiling() else _run(*args)


def _compiled(levels, weight, bias, running_mean, running_var, batches, momentum, eps, relu):
    statistics = running_mean, running_var, batches
    return list(_IntegratedNorm.apply(weight, bias, statistics, momentum, eps, relu, *levels))


class _IntegratedNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, weight, bias, statistics, momentum, eps, relu, *levels):
        run = torch.ops.icconv_mm.integrated_norm_compiled.default
        with below_autograd():
            outputs, mean, inverse = run(list(levels), weight, bias, *statistics, momentum, eps, relu)
        ctx.save_for_backward(weight, bias, mean, inverse, *levels)
        ctx.relu = relu
        return tuple(outputs)

    @staticmethod
    @once_differentiable
    def backward(ctx, *grads):
        weight, bias, mean, inverse, *levels = ctx.saved_tensors
        grads = [grad.to(level.dtype) for grad, level in zip(grads, levels)]
        run = torch.ops.icconv_mm.integrated_norm_grad_compiled.default
        to_levels, to_weight, to_bias = run(grads, levels, weight, bias, mean, inverse, ctx.relu)
        need_weight, need_bias = ctx.needs_input_grad[:2]
        return to_weight if need_weight else None, to_bias if need_bias else None, None, None, None, None, *to_levels


def _refusal(device: str, levels: Sequence[Tensor], weight, bias, running_mean, *_) -> str | None:
    first = levels[0]
    if device == 'cuda' and len(levels) > MAX_LEVELS:
        return f'it takes at most {MAX_LEVELS} levels, got {len(levels)}'
    if reason := device_refusal((first,), device) or mixture_refusal(levels, 'levels'):
        return reason
    if first.dtype not in DTYPES[device]:
        known = ', '.join(str(dtype).removeprefix('torch.') for dtype in DTYPES[device])
        return f'it takes {known}, got {first.dtype}'
    if any(level.numel() == 0 for level in levels):
        return 'it takes levels that are not empty'
    wanted = torch.float64 if first.dtype == torch.float64 else torch.float32
    for each in (weight, bias, running_mean):
        if each is not None and each.dtype != wanted:
            return f'it takes {str(wanted).removeprefix("torch.")} parameters and statistics, got {each.dtype}'
    return None


# an operator of `torch.library` cannot both change running statistics and have a gradient
_run = register_function(
    'integrated_norm',
    reference.forward,
    limits={
        'cpu': Limits(partial(_refusal, 'cpu')),
        'cuda': Limits(partial(_refusal, 'cuda'), lambda levels, *_: unproven('integrated_norm', levels[0])),
    },
    compiled=_compiled,
)
