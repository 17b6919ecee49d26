"""Pyramid convolution: a convolution over the levels of a feature pyramid as well as over space."""

from collections.abc import Sequence
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from icconv_mm.errors import InputError
from icconv_mm.layers.integrated_batch_norm import IntegratedBatchNorm, IntegratedSyncBatchNorm, integrated_batch_norm
from icconv_mm.layers.scale_equalized_conv import ScaleEqualizedConv2d, merged_convs
from icconv_mm.ops.steps.pyramid_sum import pyramid_sum


class PConvLayer(nn.Module):
    """One pyramid convolution, with integrated batch norm if wanted, and ReLU.

    Of SEPC, https://arxiv.org/abs/2005.03101. All levels share the weights, level l + 1 has half the resolution of
    level l, and neighbours that do not exist are left out::

        y_l = upsample(w_1 * x_{l+1}) + w_0 * x_l + w_-1 *_{stride 2} x_{l-1}

    Args:
        in_channels: C_in of every level.
        out_channels: C_out of every level.
        deform: Whether the convolutions deform (scale equalisation).
        start_level: The finest target level whose convolutions deform, the one that reads level ``start_level - 1``
            included; what lands on finer levels stays plain.
        ibn: Whether to normalise, with statistics of all levels together.
        sync_ibn: Whether the statistics are also those of all processes.

    Example:
        >>> levels = [torch.randn(1, 8, 32, 32), torch.randn(1, 8, 16, 16)]
        >>> [level.shape for level in PConvLayer(8, 6, ibn=True)(levels)]
        [torch.Size([1, 6, 32, 32]), torch.Size([1, 6, 16, 16])]
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        deform: bool = False,
        start_level: int = 1,
        ibn: bool = False,
        sync_ibn: bool = False,
    ):
        super().__init__()
        self.in_channels = in_channels
        self.deform = deform
        self.start_level = start_level
        self.from_coarser = ScaleEqualizedConv2d(in_channels, out_channels, deform=deform)
        self.from_same = ScaleEqualizedConv2d(in_channels, out_channels, deform=deform)
        self.from_finer = ScaleEqualizedConv2d(in_channels, out_channels, stride=2, deform=deform)
        self.norm = make_ibn(out_channels, sync_ibn) if ibn else None

    def forward(self, levels: Sequence[Tensor]) -> list[Tensor]:
        """Levels ``[N, C_in, H_l, W_l]``, finest first -> levels ``[N, C_out, H_l, W_l]``.

        Raises:
            InputError: As :func:`check_pyramid`.
        """
        check_pyramid(levels, self.in_channels)
        sums, upwards = self._from_same_and_coarser(levels)
        for target, y in enumerate(sums):
            finer = self.from_finer(levels[target - 1], self._deforms(target)) if target else None
            is_coarsest = target + 1 == len(levels)
            sums[target] = y + finer if is_coarsest else pyramid_sum(y, upwards[target + 1], finer)
        return normalize_and_rectify(sums, self.norm)

    def _deforms(self, target: int) -> bool:
        return self.deform and target >= self.start_level

    def _from_same_and_coarser(self, levels: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor | None]]:
        """Per level what it adds to itself, and what it adds, once upsampled, to the next finer level."""
        pair, merged = (self.from_same, self.from_coarser), {}
        same, upwards = [self.from_same(levels[0], self._deforms(0))], [None]
        for level, x in enumerate(levels[1:], 1):
            here, finer = self._deforms(level), self._deforms(level - 1)
            if here == finer:
                own, up = merged_convs(x, pair, here, merged)
            else:
                own, up = self.from_same(x, here), self.from_coarser(x, finer)
            same.append(own)
            upwards.append(up)
        return same, upwards


def make_ibn(channels: int, sync: bool) -> nn.Module:
    """Integrated batch norm of one process or of all."""
    return IntegratedSyncBatchNorm(channels) if sync else IntegratedBatchNorm(channels)


def normalize_and_rectify(levels: Sequence[Tensor], norm: nn.Module | None, inplace: bool = True) -> list[Tensor]:
    """Integrated batch norm, unless ``norm`` is None, and ReLU; ``inplace`` on levels that are views is an error."""
    if norm is not None:  # not norm(levels): converting to SyncBatchNorm replaces the class
        return integrated_batch_norm(levels, norm, relu=True)
    return [F.relu(x, inplace) for x in levels]


def check_pyramid(levels: Sequence[Tensor], channels: int) -> None:
    """Raise InputError unless levels are ``[N, channels, H_l, W_l]``, each the rounded-up half of the finer one.

    Raises:
        InputError: Fewer than two levels, a level of another shape, or two whose sizes do not halve; names them.
    """
    if len(levels) < 2:
        raise InputError(f'a pyramid convolution needs at least 2 levels, got {len(levels)}')
    batch = levels[0].shape[0]
    for level, x in enumerate(levels):
        if x.ndim != 4 or x.shape[:2] != (batch, channels):
            raise InputError(f'level {level}: expected [{batch}, {channels}, H, W], got {list(x.shape)}')
    sizes = [f'{x.shape[2]}x{x.shape[3]}' for x in levels]
    for level, (finer, coarser) in enumerate(pairwise(levels)):
        height, width = ((size + 1) // 2 for size in finer.shape[2:])
        if coarser.shape[2:] != (height, width):
            raise InputError(
                f'levels {level} and {level + 1} disagree: half of {sizes[level]}, rounded up, is {height}x{width}, '
                f'but level {level + 1} is {sizes[level + 1]} (all levels: {", ".join(sizes)})'
            )
