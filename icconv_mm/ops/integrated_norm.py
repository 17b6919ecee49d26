"""Integrated batch norm in training mode, for all levels of a pyramid at once."""

from collections.abc import Sequence

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from icconv_mm.ops.dispatch import Kernel, register, run
from icconv_mm.ops.tensors import FLOAT_DTYPES, device_refusal, mixture_refusal
from icconv_mm.torch_private import below_autograd, is_compiling, is_exporting


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
    group: 'dist.ProcessGroup | None' = None,
) -> list[Tensor]:
    """Batch norm with statistics of all pixels of all levels, then optionally ReLU; once differentiable.

    On a CPU the forward and the backward pass need two passes over memory each.

    Args:
        levels: ``[N, C, H_l, W_l]`` each, unchecked.
        weight, bias: ``[C]`` or None.
        running_mean, running_var, batches: Statistics ``[C]``, ``[C]`` and number of batches ``[]``, updated in place;
            or None.
        momentum: Share of this batch in the statistics.
        eps: Added to the variance.
        relu: Whether negative values become zero.
        group: Processes that share the statistics. The reference runs such calls, and calls in ``torch.compile``.

    Returns:
        Levels of the same shapes.
    """
    args = levels, weight, bias, running_mean, running_var, batches, momentum, eps, relu
    if group is None and is_exporting():  # an exported program keeps no gradient rule of its own
        return composed(*args)
    if group is not None or is_compiling():
        return reference(*args, group=group)
    return run('integrated_norm', *args)


# --- the reference, in torch's own steps


def reference(
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
    group: 'dist.ProcessGroup | None' = None,
) -> list[Tensor]:
    """``[N, C, H_l, W_l]`` each -> the same shapes; arguments as those of ``integrated_norm``.

    The pyramid is never concatenated: moments are taken per level and combined.
    """
    *outputs, mean, var, count = _Normalize.apply(weight, bias, eps, group, *levels)
    _update(running_mean, running_var, batches, momentum, mean, var, count)
    return [F.relu(x, inplace=True) for x in outputs] if relu else outputs


def composed(
    levels: Sequence[Tensor],
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    batches: Tensor | None,
    momentum: float,
    eps: float,
    relu: bool,
) -> list[Tensor]:
    """:func:`reference` by operators that have gradients of their own, with more passes over memory."""
    dtype = torch.float64 if levels[0].dtype == torch.float64 else torch.float32
    wide = [x.to(dtype) for x in levels]
    moments = [torch.var_mean(x, (0, 2, 3), correction=0) for x in wide]
    variances, means = (torch.stack(column) for column in zip(*moments))
    counts = means.new_tensor([x.shape[0] * x.shape[2] * x.shape[3] for x in wide])
    mean, var, count = _combine(means, variances, counts)
    _update(running_mean, running_var, batches, momentum, mean.detach(), var.detach(), count)
    scale = torch.rsqrt(var + eps) * (1 if weight is None else weight.to(dtype))
    outputs = [(x - mean[:, None, None]) * scale[:, None, None] for x in wide]
    if bias is not None:
        outputs = [x + bias.to(dtype)[:, None, None] for x in outputs]
    outputs = [x.to(levels[0].dtype) for x in outputs]
    return [F.relu(x) for x in outputs] if relu else outputs


def _update(running_mean, running_var, batches, momentum, mean, var, count) -> None:
    """Updates the running statistics in place, if there are any."""
    if batches is not None:
        with torch.no_grad():
            batches.add_(1)
            running_mean.lerp_(mean.to(running_mean.dtype), momentum)
            running_var.lerp_((var * (count / (count - 1))).to(running_var.dtype), momentum)


class _Normalize(torch.autograd.Function):
    """(weight, bias, eps, group, *levels) -> (*normalised levels, mean [C], biased variance [C], pixels [])."""

    @staticmethod
    def forward(ctx, weight, bias, eps, group, *levels):
        mean, var, count = _combine(*_moments(levels))
        if group is not None:
            mean, var, count = _combine(*_gather(mean, var, count, group))
        ctx.save_for_backward(weight, mean, var, count, *levels)
        ctx.eps, ctx.group, ctx.has_bias = eps, group, bias is not None
        scale, shift = (None if t is None else t.to(mean.dtype) for t in (weight, bias))
        outputs = [F.batch_norm(x, mean, var, scale, shift, False, 0.0, eps) for x in levels]
        ctx.mark_non_differentiable(mean, var, count)
        return (*outputs, mean, var, count)

    @staticmethod
    @once_differentiable
    def backward(ctx, *grads):
        weight, mean, var, count, *levels = ctx.saved_tensors
        scale = torch.ones_like(mean) if weight is None else weight.to(mean.dtype)
        grads = [grad.to(x.dtype) for grad, x in zip(grads, levels)]
        # sum of grad * normalised x [C], and of grad [C], over this process's levels
        inverse = torch.rsqrt(var + ctx.eps)
        sums = torch.stack([_sums(grad, x, mean, inverse) for grad, x in zip(grads, levels)]).sum(0)
        grad_weight = sums[0].to(weight.dtype) if weight is not None and ctx.needs_input_grad[0] else None
        grad_bias = sums[1].to(weight.dtype) if ctx.has_bias and ctx.needs_input_grad[1] else None
        grad_levels = [None] * len(levels)
        if any(ctx.needs_input_grad[4:]):
            if ctx.group is not None:
                sums = sums.clone()
                dist.all_reduce(sums, group=ctx.group)
            # grad_x = factor * (grad - mean(grad) - x_hat * mean(grad * x_hat)), x_hat = inverse * (x - mean)
            factor = scale * inverse
            slope, shift = -factor * sums / count
            # batch norm with these parameters is slope * x_hat + shift, in one pass over memory
            affine = slope * inverse, shift, mean, torch.ones_like(mean), False, 0.0, 0.0, False
            grad_levels = [
                torch.batch_norm(x, *affine).addcmul_(grad, factor[:, None, None].to(grad.dtype))
                for grad, x in zip(grads, levels)
            ]
        return (grad_weight, grad_bias, None, None, *grad_levels)


def _moments(levels: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Returns means [L, C], biased variances [L, C] and numbers of pixels [L] of the levels, in float32 or float64."""
    dtype = torch.float64 if levels[0].dtype == torch.float64 else torch.float32
    unused = levels[0].new_zeros(2, levels[0].shape[1], dtype=dtype)  # running statistics set the dtype
    parts = [torch.batch_norm_update_stats(x, *unused, 0.0) if x.numel() else tuple(unused) for x in levels]
    means, variances = (torch.stack(column) for column in zip(*parts))
    return means, variances, means.new_tensor([x.shape[0] * x.shape[2] * x.shape[3] for x in levels])


def _combine(means: Tensor, variances: Tensor, counts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Returns mean [C], biased variance [C] and pixels [] of a union of parts, given theirs: [P, C], [P, C], [P]."""
    count = counts.sum()
    share = (counts / count)[:, None]
    mean = (share * means).sum(0)
    var = (share * (variances + (means - mean).square())).sum(0)
    return mean, var, count


def _gather(mean: Tensor, var: Tensor, count: Tensor, group) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the moments of every process of a group, [P, C], [P, C] and [P], in one exchange."""
    moments = torch.cat([mean, var, count[None]])
    every = [torch.empty_like(moments) for _ in range(dist.get_world_size(group))]
    dist.all_gather(every, moments, group=group)
    means, variances, counts = torch.stack(every).split([len(mean), len(mean), 1], 1)
    return means, variances, counts[:, 0]


def _sums(grad: Tensor, x: Tensor, mean: Tensor, inverse: Tensor) -> Tensor:
    """Returns sums over pixels of grad * normalised x and of grad, [2, C], in one pass."""
    if x.numel() == 0:
        return mean.new_zeros(2, len(mean))
    # training mode with given statistics: inference mode fails on CUDA without a gradient of x
    backward = torch.ops.aten.native_batch_norm_backward.default
    ones, mask = torch.ones_like(mean), [False, True, True]
    no_running = None, None  # mean and variance
    _, weighted, plain = backward(grad, x, ones, *no_running, mean, inverse, True, 0.0, mask)
    return torch.stack([weighted, plain])


# --- the compiled kernel: its gradient and its rules


def _compiled(levels, weight, bias, running_mean, running_var, batches, momentum, eps, relu):
    statistics = running_mean, running_var, batches
    return list(_IntegratedNorm.apply(weight, bias, statistics, momentum, eps, relu, *levels))


class _IntegratedNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, weight, bias, statistics, momentum, eps, relu, *levels):
        forward = torch.ops.icconv_mm.integrated_norm_compiled.default
        with below_autograd():
            outputs, mean, inverse = forward(list(levels), weight, bias, *statistics, momentum, eps, relu)
        ctx.save_for_backward(weight, bias, mean, inverse, *levels)
        ctx.relu = relu
        return tuple(outputs)

    @staticmethod
    @once_differentiable
    def backward(ctx, *grads):
        weight, bias, mean, inverse, *levels = ctx.saved_tensors
        grads = [grad.to(level.dtype) for grad, level in zip(grads, levels)]
        backward = torch.ops.icconv_mm.integrated_norm_grad_compiled.default
        to_levels, to_weight, to_bias = backward(grads, levels, weight, bias, mean, inverse, ctx.relu)
        need_weight, need_bias = ctx.needs_input_grad[:2]
        return to_weight if need_weight else None, to_bias if need_bias else None, None, None, None, None, *to_levels


def _refusal(levels: Sequence[Tensor], weight, bias, running_mean, *_) -> str | None:
    first = levels[0]
    if reason := device_refusal((first,), 'cpu') or mixture_refusal(levels, 'levels'):
        return reason
    if first.dtype not in FLOAT_DTYPES:
        return f'it needs floating-point levels, got {first.dtype}'
    if any(level.numel() == 0 for level in levels):
        return 'it needs levels that are not empty'
    wanted = torch.float64 if first.dtype == torch.float64 else torch.float32
    for tensor in (weight, bias, running_mean):
        if tensor is not None and tensor.dtype != wanted:
            return f'it needs {str(wanted).removeprefix("torch.")} parameters and statistics, got {tensor.dtype}'
    return None


# an operator of `torch.library` cannot both change running statistics and have a gradient
register('integrated_norm', reference, {'cpu': Kernel(_refusal)}, compiled=_compiled)
