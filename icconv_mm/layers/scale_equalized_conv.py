"""3x3 convolution that is plain on the finest level of a pyramid and deformable on the others, with one weight."""

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
    Weights start as N(0, 0.01), biases and offsets as zero: at first both give the same.

    Args:
        in_channels: C_in.
        out_channels: C_out.
        stride: Stride of both axes; 1 by default.
        padding: Padding of both axes; 1 by default.
        deform: Whether there is a ``conv_offset``; without it the convolution is always plain.

    Raises:
        InputError: If it is to deform and mmcv has no compiled operators.

    Example:
        >>> conv, x = ScaleEqualizedConv2d(8, 6, stride=2, deform=True), torch.randn(1, 8, 16, 16)
        >>> conv(x).shape  # plain; conv(x, deform=True) deforms
        torch.Size([1, 6, 8, 8])
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1, padding: int = 1, deform: bool = False):
        super().__init__(in_channels, out_channels, 3, stride, padding)
        if deform:
            from icconv_mm.bricks import require_operators  # which loads mmcv

            require_operators('deform=True (pconv_deform, lcconv_deform)')
        self.conv_offset = nn.Conv2d(in_channels, OFFSETS, 3, stride, padding) if deform else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Weights N(0, 0.01), biases and offsets zero."""
        nn.init.normal_(self.weight, std=0.01)
        nn.init.zeros_(self.bias)
        offset = getattr(self, 'conv_offset', None)  # not there yet when nn.Conv2d's constructor calls
        for parameter in () if offset is None else offset.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor, deform: bool = False) -> Tensor:
        """``[N, C_in, H, W]`` -> ``[N, C_out, H', W']``, the same size, plain or deformable."""
        return self.sample(x, self.conv_offset(x)) if deform else super().forward(x)

    def sample(self, x: Tensor, offset: Tensor) -> Tensor:
        """The deformable convolution at given offsets ``[N, 18, H', W']``."""
        y = padded_deform_conv2d(x, offset, self.weight, self.stride[0], self.padding[0])
        return y + self.bias.to(y.dtype)[:, None, None]


def merged_convs(
    x: Tensor, convs: Sequence[ScaleEqualizedConv2d], deform: bool, merged: dict[bool, tuple[Tensor, Tensor]]
) -> Sequence[Tensor]:
    """The outputs of several convolutions of equal stride and padding for one map, all plain or all deformable.

    Plain ones run as one convolution, and so do the convolutions to offsets: on the small maps of a pyramid the
    number of launches is what counts.

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


def padded_deform_conv2d(x: Tensor, offset: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    """mmcv's deformable convolution for any batch, any map size, and under autocast.

    Args:
        x: ``[N, C_in, H, W]``.
        offset: ``[N, 2 K K, H', W']`` in pixels, (dy, dx) of every tap.
        weight: ``[C_out, C_in, K, K]``.
        stride, padding: Stride and padding of both axes.

    Returns:
        ``[N, C_out, H', W']``, in the dtype of ``offset``.
    """
    from icconv_mm.bricks import deform_conv2d  # which loads mmcv

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
    y = deform_conv2d(x, offset, weight, stride, padding, 1, 1, 1, False, math.gcd(len(x), _LARGEST_STEP))
    return y[..., :height, :width].to(dtype)
