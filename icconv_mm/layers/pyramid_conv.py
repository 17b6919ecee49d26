"""Pyramid convolution: a convolution over the levels of a feature pyramid as well as over space.

Scale-Equalizing Pyramid Convolution (SEPC), CVPR 2020, https://arxiv.org/abs/2005.03101.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from icconv_mm.errors import InputError
from icconv_mm.layers.deform_conv import deform_conv2d_on_any_device
from icconv_mm.layers.integrated_batch_norm import IntegratedBatchNorm, IntegratedSyncBatchNorm, integrated_batch_norm
from icconv_mm.ops.pyramid_sum import pyramid_sum

OFFSETS = 18  # (dy, dx) of the nine taps


class ScaleEqualizedConv2d(nn.Conv2d):
    """A 3x3 convolution that can also run as a deformable one (v1: offsets, no mask) with the same weight and bias.

    On the finest level of a pyramid the kernel samples its grid; on coarser ones learnt offsets compensate for the blur
    by which a feature pyramid differs from a Gaussian one (SEPC, https://arxiv.org/abs/2005.03101). Weights start as
    N(0, 0.01), biases and offsets as zero: at first both forms give the same results.

    Args:
        in_channels: C_in.
        out_channels: C_out.
        stride: Stride of both axes; 1 by default.
        padding: Padding of both axes; 1 by default.
        deform: Whether there is a ``conv_offset``; without it the convolution is always plain.

    Example:
        >>> conv, x = ScaleEqualizedConv2d(8, 6, stride=2, deform=True), torch.randn(1, 8, 16, 16)
        >>> conv(x).shape  # plain; conv(x, deform=True) deforms
        torch.Size([1, 6, 8, 8])
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1, padding: int = 1, deform: bool = False):
        super().__init__(in_channels, out_channels, 3, stride, padding)
        self.conv_offset = nn.Conv2d(in_channels, OFFSETS, 3, stride, padding) if deform else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Weights N(0, 0.01), biases and offsets zero."""
        nn.init.normal_(self.weight, std=0.01)
        nn.init.zeros_(self.bias)
        offset = getattr(self, 'conv_offset', None)  # does not exist yet when nn.Conv2d's constructor calls
        for parameter in () if offset is None else offset.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor, deform: bool = False) -> Tensor:
        """``[N, C_in, H, W]`` -> ``[N, C_out, H', W']``, the same size, plain or deformable."""
        return self.sample(x, self.conv_offset(x)) if deform else super().forward(x)

    def sample(self, x: Tensor, offset: Tensor) -> Tensor:
        """Computes the deformable convolution at given offsets ``[N, 18, H', W']``."""
        return deform_conv2d_on_any_device(x, self.weight, offset, None, self.stride, self.padding, bias=self.bias)


def merged_convs(
    x: Tensor, convs: Sequence[ScaleEqualizedConv2d], deform: bool, merged: dict[bool, tuple[Tensor, Tensor]]
) -> Sequence[Tensor]:
    """Returns the outputs of several convolutions of equal stride and padding for one map, all plain or all deformable.

    Plain ones run as one convolution, and so do those of the offsets: on the small maps of a pyramid the number of
    launches decides the time.

    Args:
        x: ``[N, C_in, H, W]``.
        convs, deform: The convolutions, and whether they deform.
        merged: Empty at first; keeps their concatenated weights between the calls of one forward.
    """
    first = convs[0]
    if len(convs) == 1:
        return [first(x, deform)]
    if deform not in merged:
        parts = [conv.conv_offset for conv in convs] if deform else convs
        merged[deform] = torch.cat([part.weight for part in parts]), torch.cat([part.bias for part in parts])
    y = F.conv2d(x, *merged[deform], first.stride, first.padding)
    if not deform:
        return y.split([conv.out_channels for conv in convs], 1)
    return [conv.sample(x, offset) for conv, offset in zip(convs, y.split(OFFSETS, 1))]


class NormsFirst(nn.Module):
    """A module whose norms are not those of the convolutions registered before them.

    ``named_children`` yields the norms first: mmcv's ``fuse_conv_bn`` folds a norm into the convolution that it saw
    before it, and passes over a norm that has none. Parameters keep their order.
    """

    def named_children(self) -> Iterator[tuple[str, nn.Module]]:
        """Yields the children and their names, norms first."""
        return iter(sorted(super().named_children(), key=lambda named: not isinstance(named[1], _BatchNorm)))


class PConvLayer(NormsFirst):
    """One pyramid convolution, optionally with integrated batch norm, and ReLU.

    Of SEPC, https://arxiv.org/abs/2005.03101. All levels share the weights, level l + 1 has half the resolution of
    level l, and missing neighbours are skipped::

        y_l = upsample(w_1 * x_{l+1}) + w_0 * x_l + w_-1 *_{stride 2} x_{l-1}

    Args:
        in_channels: C_in of every level.
        out_channels: C_out of every level.
        deform: Whether the convolutions deform (scale equalisation).
        start_level: The finest target level whose convolutions deform, also the one that reads level
            ``start_level - 1``; convolutions to finer levels stay plain.
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
        return normalize_and_relu(sums, self.norm)

    def norms_and_convs(self) -> list[tuple[str, tuple[nn.Module, ...]]]:
        """Returns the name of the norm, and the convolutions whose sum it normalises."""
        return [('norm', (self.from_same, self.from_coarser, self.from_finer))]

    def _deforms(self, target: int) -> bool:
        return self.deform and target >= self.start_level

    def _from_same_and_coarser(self, levels: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor | None]]:
        """Returns for each level its own term, and the one that, upsampled, is added to the next finer level."""
        pair, merged = (self.from_same, self.from_coarser), {}
        same, upwards = [self.from_same(levels[0], self._deforms(0))], [None]
        for level, x in enumerate(levels[1:], 1):
            here, finer = self._deforms(level), self._deforms(level - 1)
            if here == finer:
                from_same_level, up = merged_convs(x, pair, here, merged)
            else:
                from_same_level, up = self.from_same(x, here), self.from_coarser(x, finer)
            same.append(from_same_level)
            upwards.append(up)
        return same, upwards


def make_ibn(channels: int, sync: bool) -> nn.Module:
    """Returns integrated batch norm of one process or of all."""
    return IntegratedSyncBatchNorm(channels) if sync else IntegratedBatchNorm(channels)


def normalize_and_relu(levels: Sequence[Tensor], norm: nn.Module | None, inplace: bool = True) -> list[Tensor]:
    """Integrated batch norm, unless ``norm`` is None, and ReLU; ``inplace`` on levels that are views is an error."""
    if norm is not None:  # not norm(levels): converting to SyncBatchNorm replaces the class
        return integrated_batch_norm(levels, norm, relu=True)
    return [F.relu(x, inplace) for x in levels]


def check_pyramid(levels: Sequence[Tensor], channels: int) -> None:
    """Raises InputError unless levels are ``[N, channels, H_l, W_l]``, each the rounded-up half of the finer one.

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
