"""Integrated batch normalisation: one batch norm whose statistics come from all levels of a pyramid.

Of SEPC, https://arxiv.org/abs/2005.03101. The levels share mean and variance, and every pixel of every level
counts alike. The pyramid is never concatenated: moments are taken per level and combined.
"""

from collections.abc import Sequence

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm

from icconv_mm.ops import backend, integrated_norm
from icconv_mm.ops.normalised_gradient import normalised_gradient
from icconv_mm.ops.torch_private import is_compiling


class IntegratedBatchNorm(nn.BatchNorm2d):
    """Batch norm over all levels of a pyramid together; parameters, buffers and keys are those of ``nn.BatchNorm2d``.

    In training mode the result, the gradients and the running statistics are those of batch norm over all pixels of all
    levels. In evaluation mode every level is normalised with the running statistics. Statistics are computed in float32
    (float64 for float64) whatever the dtype of the levels, and the output has the dtype of the input.

    Example:
        >>> fine, coarse = IntegratedBatchNorm(8)([torch.randn(1, 8, 16, 16), 5 + torch.randn(1, 8, 8, 8)])
        >>> fine.mean() < 0 < coarse.mean()
        tensor(True)
    """

    def forward(self, levels: Sequence[Tensor]) -> list[Tensor]:
        """Levels ``[N, C, H_l, W_l]`` of any sizes -> levels of the same shapes.

        Raises:
            ValueError: As :func:`integrated_batch_norm`.
        """
        return integrated_batch_norm(levels, self)


class IntegratedSyncBatchNorm(nn.SyncBatchNorm):
    """:class:`IntegratedBatchNorm` whose statistics also come from all processes of a group, on any device.

    Example:
        >>> norm = IntegratedSyncBatchNorm(8)  # in a single process the same as IntegratedBatchNorm(8)
        >>> [level.shape for level in norm([torch.randn(1, 8, 16, 16), torch.randn(1, 8, 8, 8)])]
        [torch.Size([1, 8, 16, 16]), torch.Size([1, 8, 8, 8])]
    """

    forward = IntegratedBatchNorm.forward


def integrated_batch_norm(levels: Sequence[Tensor], norm: _BatchNorm, relu: bool = False) -> list[Tensor]:
    """Normalise the levels of a pyramid with the parameters and buffers of one batch norm, and rectify them if wanted.

    Args:
        levels: ``[N, C, H_l, W_l]`` each, equal N and C.
        norm: An ``nn.BatchNorm2d``, or an ``nn.SyncBatchNorm``, whose process group then shares the statistics (also on
            the CPU). Libraries replace the one by the other in whole models, so both are taken.
        relu: Whether a ReLU follows.

    Raises:
        ValueError: A level has other than C channels, or batch statistics are wanted of a single pixel in total.

    Example:
        >>> levels = integrated_batch_norm([torch.randn(1, 8, 16, 16), torch.randn(1, 8, 8, 8)], nn.BatchNorm2d(8))
        >>> torch.cat([level.flatten(2) for level in levels], 2).mean().abs() < 1e-6
        tensor(True)
    """
    _check_channels(levels, norm.num_features)
    if not norm.training and norm.running_mean is not None:
        settings = norm.running_mean, norm.running_var, norm.weight, norm.bias, False, 0.0, norm.eps
        return _rectified([F.batch_norm(x, *settings) for x in levels], relu)
    group = _process_group(norm)
    _check_pixels(levels, 1 if group is not None else 2)  # of every process, so that nobody waits for one that failed
    if group is None and not is_compiling():
        tracked = norm.training and norm.track_running_stats
        statistics = (norm.running_mean, norm.running_var, norm.num_batches_tracked) if tracked else (None,) * 3
        momentum = _momentum(norm) if tracked else 0.0
        return backend.run('integrated_norm', levels, norm.weight, norm.bias, *statistics, momentum, norm.eps, relu)
    *outputs, mean, var, count = _Normalize.apply(norm.weight, norm.bias, norm.eps, group, *levels)
    if norm.training and norm.track_running_stats:
        settings = norm.running_mean, norm.running_var, norm.num_batches_tracked, _momentum(norm)
        _update_running_statistics(*settings, mean, var, count)
    return _rectified(outputs, relu)


def _reference(levels, weight, bias, running_mean, running_var, batches, momentum, eps, relu):
    *outputs, mean, var, count = _Normalize.apply(weight, bias, eps, None, *levels)
    if batches is not None:
        _update_running_statistics(running_mean, running_var, batches, momentum, mean, var, count)
    return _rectified(outputs, relu)


def _rectified(levels: list[Tensor], relu: bool) -> list[Tensor]:
    return [F.relu(x, inplace=True) for x in levels] if relu else levels


def _check_channels(levels: Sequence[Tensor], channels: int) -> None:
    for number, x in enumerate(levels):
        if x.ndim != 4 or x.shape[1] != channels:
            raise ValueError(f'batch norm: level {number}: expected [N, {channels}, H, W], got {list(x.shape)}')


def _check_pixels(levels: Sequence[Tensor], least: int) -> None:
    pixels = sum(x.shape[0] * x.shape[2] * x.shape[3] for x in levels)
    if pixels < least:
        shapes = ', '.join(str(list(x.shape)) for x in levels)
        raise ValueError(
            f'batch norm in training mode needs {least} pixels or more over all levels, got {pixels} (levels {shapes})'
        )


def _process_group(norm: _BatchNorm):
    """The group that shares the statistics, None where a process keeps to itself."""
    shares = isinstance(norm, nn.SyncBatchNorm) and norm.training
    if not (shares and dist.is_available() and dist.is_initialized()):
        return None
    group = norm.process_group or dist.group.WORLD
    return group if dist.get_world_size(group) > 1 else None


def _momentum(norm: _BatchNorm) -> float:
    """The share of the next batch; without a momentum that of the plain average over all batches so far."""
    return norm.momentum if norm.momentum is not None else 1.0 / (1 + int(norm.num_batches_tracked))


@torch.no_grad()
def _update_running_statistics(running_mean, running_var, batches, momentum, mean, var, count) -> None:
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
            grad_levels = [
                normalised_gradient(grad, x, mean, factor, slope * inverse, shift) for grad, x in zip(grads, levels)
            ]
        return (grad_weight, grad_bias, None, None, *grad_levels)


def _moments(levels: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Means [L, C], biased variances [L, C] and numbers of pixels [L] of the levels, in float32 or float64."""
    dtype = torch.float64 if levels[0].dtype == torch.float64 else torch.float32
    unused = levels[0].new_zeros(2, levels[0].shape[1], dtype=dtype)  # running statistics, which set the dtype
    parts = [torch.batch_norm_update_stats(x, *unused, 0.0) if x.numel() else tuple(unused) for x in levels]
    means, variances = (torch.stack(column) for column in zip(*parts))
    return means, variances, means.new_tensor([x.shape[0] * x.shape[2] * x.shape[3] for x in levels])


def _combine(means: Tensor, variances: Tensor, counts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean [C], biased variance [C] and pixels [] of a union of parts, given theirs: [P, C], [P, C], [P]."""
    count = counts.sum()
    share = (counts / count)[:, None]
    mean = (share * means).sum(0)
    var = (share * (variances + (means - mean).square())).sum(0)
    return mean, var, count


def _gather(mean: Tensor, var: Tensor, count: Tensor, group) -> tuple[Tensor, Tensor, Tensor]:
    """The moments of every process of a group, [P, C], [P, C] and [P], in one exchange."""
    own = torch.cat([mean, var, count[None]])
    every = [torch.empty_like(own) for _ in range(dist.get_world_size(group))]
    dist.all_gather(every, own, group=group)
    means, variances, counts = torch.stack(every).split([len(mean), len(mean), 1], 1)
    return means, variances, counts[:, 0]


def _sums(grad: Tensor, x: Tensor, mean: Tensor, inverse: Tensor) -> Tensor:
    """Sums over pixels of grad * normalised x and of grad, [2, C], in one pass."""
    if x.numel() == 0:
        return mean.new_zeros(2, len(mean))
    # the form of training, whose statistics are given: that of inference fails on CUDA without a gradient of x
    backward = torch.ops.aten.native_batch_norm_backward.default
    ones, mask = torch.ones_like(mean), [False, True, True]
    no_running = None, None  # mean and variance
    _, weighted, plain = backward(grad, x, ones, *no_running, mean, inverse, True, 0.0, mask)
    return torch.stack([weighted, plain])


integrated_norm.register(_reference)
