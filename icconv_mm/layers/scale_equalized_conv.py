"""3x3 convolution that is plain on the finest level of a pyramid and deformable on the others, with one weight."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

OFFSETS = 18  # (dy, dx) of the nine taps
_LARGEST_STEP = 32  # images per im2col of mmcv's operator, which must divide the batch


class ScaleEqualizedConv2d(nn.Conv2d):
    """A 3x3 convolution that can also run as a deformable one (v1: offsets, no mask) with the same weight and bias.

    On the finest level of a pyramid the kernel samples its grid; on coarser ones learnt offsets let it follow the blur
    that makes the feature pyramid of a network differ from a Gaussian one (SEPC, https://arxiv.org/abs/2005.03101).
    Weights start as N(0, 0.01), biases and offsets as zero: at first both forms are the same.

    Args:
        in_channels: C_in.
        out_channels: C_out.
        stride: Of both axes.
        padding: Of both axes.
        deform: Whether there is a ``conv_offset``; without it only the plain form exists.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1, padding: int = 1, deform: bool = False):
        super().__init__(in_channels, out_channels, 3, stride, padding)
        self.conv_offset = nn.Conv2d(in_channels, OFFSETS, 3, stride, padding) if deform else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Weights N(0, 0.01), biases and offsets zero."""
        nn.init.normal_(self.weight, std=0.01)
        nn.init.zeros_(self.bias)
        offset = getattr(self, 'conv_offset', None)  # not there yet when nn.Conv2d's constructor calls
        if offset is not None:
            nn.init.zeros_(offset.weight)
            nn.init.zeros_(offset.bias)

    def forward(self, x: Tensor, deform: bool = False) -> Tensor:
        """``[N, C_in, H, W]`` -> ``[N, C_out, H', W']``, the same size in both forms."""
        if not deform:
            return super().forward(x)
        return self.sample(x, self.conv_offset(x))

    def sample(self, x: Tensor, offset: Tensor) -> Tensor:
        """The deformable form at given offsets ``[N, 18, H', W']``."""
        y = deform_conv2d(x, offset, self.weight, self.stride[0], self.padding[0])
        return y + self.bias.to(y.dtype)[:, None, None]


class JointConvs:
    """Several :class:`ScaleEqualizedConv2d` of equal stride and padding that read the same maps.

    The plain forms run as one convolution, and so do the convolutions to offsets: on the small maps of a pyramid the
    number of launches is what counts. Weights are concatenated at construction, so an instance lives for one forward.
    """

    def __init__(self, convs: Sequence[ScaleEqualizedConv2d]):
        self.convs = convs
        self._joined: dict[bool, tuple[Tensor, Tensor]] = {}

    def __call__(self, x: Tensor, deform: bool) -> Sequence[Tensor]:
        """The output of every convolution for the map ``[N, C_in, H, W]``, all of them plain or all deformable."""
        first = self.convs[0]
        if len(self.convs) == 1:
            return [first(x, deform)]
        if deform not in self._joined:
            parts = [conv.conv_offset for conv in self.convs] if deform else self.convs
            self._joined[deform] = torch.cat([p.weight for p in parts]), torch.cat([p.bias for p in parts])
        y = F.conv2d(x, *self._joined[deform], first.stride, first.padding)
        if not deform:
            return y.split([conv.out_channels for conv in self.convs], 1)
        return [conv.sample(x, offset) for conv, offset in zip(self.convs, y.split(OFFSETS, 1))]


def deform_conv2d(x: Tensor, offset: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    """mmcv's deformable convolution for any batch, any map size, and under autocast.

    Args:
        x: ``[N, C_in, H, W]``.
        offset: ``[N, 2 K K, H', W']`` in pixels, (dy, dx) of every tap.
        weight: ``[C_out, C_in, K, K]``.
        stride, padding: Of both axes.

    Returns:
        ``[N, C_out, H', W']``, in the dtype of ``offset``.
    """
    from mmcv.ops.deform_conv import deform_conv2d as run  # needs mmcv's compiled operators, which mmcv-lite lacks

    dtype, (height, width) = offset.dtype, offset.shape[-2:]
    if dtype == torch.bfloat16 or (dtype == torch.float16 and not x.is_cuda):  # mmcv has no kernel
        offset = offset.float()
    kernel = weight.shape[-1]
    below, beside = (max(kernel - size, 0) for size in x.shape[-2:])
    if below or beside:  # mmcv refuses maps below the kernel's size; outside of a map it reads zeros, as here
        x = F.pad(x, (0, beside, 0, below))
        rows, columns = ((size + 2 * padding - kernel) // stride + 1 for size in x.shape[-2:])
        offset = F.pad(offset, (0, columns - width, 0, rows - height))
    x, offset, weight = x.contiguous(), offset.contiguous(), weight.contiguous()
    y = run(x, offset, weight, stride, padding, 1, 1, 1, False, math.gcd(len(x), _LARGEST_STEP))
    return y[..., :height, :width].to(dtype)
