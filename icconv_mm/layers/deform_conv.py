"""Deformable convolutions with offsets of their own, as configs name them."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.utils import _pair

from icconv_mm.ops.deform_conv import deform_conv2d

_LARGEST_STEP = 32  # images per im2col of mmcv's operator, which must divide the batch


class DeformConv2d(nn.Module):
    """A deformable convolution (v1): its own offsets, no mask.

    Has the keys, initial distribution and results of mmcv's ``DCN``. On a GPU it calls mmcv's operator, if mmcv has
    compiled operators.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias: As of ``nn.Conv2d``; no bias by
            default.
        deform_groups: Parts of the input channels, each with offsets of its own.
        im2col_step: Of mmcv's, without effect.

    Source: Deformable ConvNets, https://arxiv.org/abs/1703.06211.

    Example:
        >>> DeformConv2d(8, 6, 3, padding=1)(torch.randn(1, 8, 16, 16)).shape
        torch.Size([1, 6, 16, 16])
    """

    numbers_of_a_tap = 2  # dy, dx
    has_bias = False  # by default

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        deform_groups: int = 1,
        *,
        bias: bool | None = None,
        im2col_step: int = 32,
    ):
        super().__init__()
        bias = self.has_bias if bias is None else bias
        self.in_channels, self.out_channels = in_channels, out_channels
        self.groups, self.deform_groups = groups, deform_groups
        self.kernel_size, self.stride, self.padding, self.dilation = map(
            _pair, (kernel_size, stride, padding, dilation)
        )
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels // groups, *self.kernel_size))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        count = self.numbers_of_a_tap * deform_groups * self.kernel_size[0] * self.kernel_size[1]
        numbers = self.kernel_size, self.stride, self.padding, self.dilation
        self.conv_offset = nn.Conv2d(in_channels, count, *numbers)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws the weight as mmcv does; offsets start as zero."""
        nn.init.kaiming_uniform_(self.weight, nonlinearity='relu')
        self._init_offset()

    def _init_offset(self) -> None:
        nn.init.zeros_(self.conv_offset.weight)
        nn.init.zeros_(self.conv_offset.bias)

    def extra_repr(self) -> str:
        """Returns the settings that differ from those of an ordinary convolution."""
        return (
            f'{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}, '
            f'padding={self.padding}, dilation={self.dilation}, groups={self.groups}, '
            f'deform_groups={self.deform_groups}, bias={self.bias is not None}'
        )

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C_in, H, W]`` -> ``[N, C_out, H', W']``."""
        return self.sample(x, self.conv_offset(x))

    def sample(self, x: Tensor, offset: Tensor, mask: Tensor | None = None) -> Tensor:
        """Computes the convolution at given offsets, and with a given mask."""
        numbers = self.stride, self.padding, self.dilation, self.groups, self.deform_groups
        return deform_conv2d_on_any_device(x, self.weight, offset, mask, *numbers, bias=self.bias)


class ModulatedDeformConv2d(DeformConv2d):
    """A modulated deformable convolution (v2): its own offsets, and a factor of each sample between 0 and 1.

    Has the keys and results of mmcv's ``DCNv2``. Arguments are those of :class:`DeformConv2d`; ``bias`` is True by
    default.

    Source: Deformable ConvNets v2, https://arxiv.org/abs/1811.11168.

    Example:
        >>> ModulatedDeformConv2d(8, 6, 3, stride=2, padding=1)(torch.randn(1, 8, 16, 16)).shape
        torch.Size([1, 6, 8, 8])
    """

    numbers_of_a_tap = 3  # and the factor
    has_bias = True

    def reset_parameters(self) -> None:
        """Draws the weight as mmcv does; offsets, masks before their sigmoid, and biases start as zero."""
        bound = 1 / math.sqrt(self.in_channels * self.kernel_size[0] * self.kernel_size[1])
        nn.init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            nn.init.zeros_(self.bias)
        self._init_offset()

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C_in, H, W]`` -> ``[N, C_out, H', W']``."""
        channels = self.conv_offset(x)
        mask = channels.shape[1] // 3
        return self.sample(x, channels[:, : 2 * mask], channels[:, 2 * mask :].sigmoid())


def deform_conv2d_on_any_device(
    x: Tensor,
    weight: Tensor,
    offset: Tensor,
    mask: Tensor | None = None,
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
    dilation: tuple[int, int] = (1, 1),
    groups: int = 1,
    deform_groups: int = 1,
    *,
    bias: Tensor | None = None,
) -> Tensor:
    """Computes ``deform_conv2d``, on a GPU by mmcv's operator if there is one; the result has the dtype of ``offset``.

    Works for any batch, any map size, and under autocast.
    """
    numbers = stride, padding, dilation, groups, deform_groups
    if x.is_cuda:
        from icconv_mm import compat  # which loads mmcv

        plain, modulated = compat.deform_conv_functions()
        if mask is None and plain:
            return _plain_of_mmcv(plain, x, weight, offset, bias, *numbers)
        if mask is not None and modulated:
            y = modulated(x.to(offset.dtype), offset, mask, weight.to(offset.dtype), bias, *numbers)
            return y.to(offset.dtype)
    return deform_conv2d(x, weight, offset, mask, *numbers, bias=bias).to(offset.dtype)


def _plain_of_mmcv(function: Callable, x: Tensor, weight: Tensor, offset: Tensor, bias: Tensor | None, *numbers):
    stride, padding, dilation, groups, deform_groups = numbers
    dtype, (height, width) = offset.dtype, offset.shape[-2:]
    if dtype == torch.bfloat16:  # mmcv has no kernel
        offset = offset.float()
    below, beside = (max(kernel - size, 0) for kernel, size in zip(weight.shape[-2:], x.shape[-2:]))
    if below or beside:  # mmcv refuses maps below the kernel's size; zero padding gives the same result
        x = F.pad(x, (0, beside, 0, below))
        sizes = zip(x.shape[-2:], weight.shape[-2:], stride, padding, dilation)
        rows, columns = ((size + 2 * pad - step * (side - 1) - 1) // by + 1 for size, side, by, pad, step in sizes)
        offset = F.pad(offset, (0, columns - width, 0, rows - height))
    x, offset, weight = x.contiguous(), offset.contiguous(), weight.contiguous()
    step = math.gcd(len(x), _LARGEST_STEP)
    y = function(x, offset, weight, stride, padding, dilation, groups, deform_groups, False, step)
    y = y[..., :height, :width].to(dtype)
    return y if bias is None else y + bias.to(dtype)[:, None, None]
