"""Modules of integrated batch normalisation: one batch norm for all levels of a pyramid."""

from collections.abc import Sequence

import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from icconv_mm.errors import InputError
from icconv_mm.ops.integrated_norm import integrated_norm


class IntegratedBatchNorm(nn.BatchNorm2d):
    """Batch norm over all levels of a pyramid together; parameters, buffers and keys are those of ``nn.BatchNorm2d``.

    Of SEPC, https://arxiv.org/abs/2005.03101: the levels share mean and variance, and all pixels have equal weight.

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
            InputError: As :func:`integrated_batch_norm`.
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
    """Normalises the levels of a pyramid with the parameters and buffers of one batch norm, then optionally ReLU.

    Args:
        levels: ``[N, C, H_l, W_l]`` each, equal N and C.
        norm: An ``nn.BatchNorm2d``, or an ``nn.SyncBatchNorm``, whose process group then shares the statistics (also on
            the CPU). Libraries replace the one by the other in whole models, so both are supported.
        relu: Whether a ReLU follows.

    Raises:
        InputError: A level has other than C channels, or batch statistics are required of a single pixel in total.

    Example:
        >>> levels = integrated_batch_norm([torch.randn(1, 8, 16, 16), torch.randn(1, 8, 8, 8)], nn.BatchNorm2d(8))
        >>> torch.cat([level.flatten(2) for level in levels], 2).mean().abs() < 1e-6
        tensor(True)
    """
    for number, x in enumerate(levels):
        if x.ndim != 4 or x.shape[1] != norm.num_features:
            raise InputError(
                f'batch norm: level {number}: expected [N, {norm.num_features}, H, W], got {list(x.shape)}'
            )
    if not norm.training and norm.running_mean is not None:
        settings = norm.running_mean, norm.running_var, norm.weight, norm.bias, False, 0.0, norm.eps
        outputs = [F.batch_norm(x, *settings) for x in levels]
        return [F.relu(x, inplace=True) for x in outputs] if relu else outputs
    group = _process_group(norm)
    least = 1 if group is not None else 2  # of every process, so that none waits for a failed one
    if (pixels := sum(x.shape[0] * x.shape[2] * x.shape[3] for x in levels)) < least:
        shapes = ', '.join(str(list(x.shape)) for x in levels)
        raise InputError(
            f'batch norm in training mode needs {least} pixels or more over all levels, got {pixels} (levels {shapes})'
        )
    statistics, momentum = (None, None, None), 0.0
    if norm.training and norm.track_running_stats:
        statistics, momentum = (norm.running_mean, norm.running_var, norm.num_batches_tracked), norm.momentum
        if momentum is None:  # the mean over all batches so far
            momentum = 1.0 / (1 + int(norm.num_batches_tracked))
    return integrated_norm(levels, norm.weight, norm.bias, *statistics, momentum, norm.eps, relu, group=group)


def _process_group(norm: _BatchNorm):
    """Returns the process group that shares the statistics; None for statistics of one process."""
    shares = isinstance(norm, nn.SyncBatchNorm) and norm.training
    if not (shares and dist.is_available() and dist.is_initialized()):
        return None
    group = norm.process_group or dist.group.WORLD
    return group if dist.get_world_size(group) > 1 else None
