"""Ordinary convolutions in inference, with their filters in the order that oneDNN reads fastest."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from icconv_mm.layers.convert import like
from icconv_mm.ops.steps.packed_conv import has_packed_conv_kernel, packed_conv2d
from icconv_mm.utils.torch_private import has_hooks, is_compiling


def convolve(x: Tensor, conv: nn.Module) -> Tensor:
    """``conv(x)``; where nothing is recorded, an ordinary convolution of a channels_last map runs by packed filters.

    Args:
        x: ``[N, C_in, H, W]``.
        conv: A convolution, of whatever kind.

    Returns:
        ``[N, C_out, H', W']``.
    """
    if is_compiling() or type(conv) is not nn.Conv2d or has_hooks(conv) or not _is_packed(x, conv):
        return conv(x)
    return _packed(x, conv) if x.is_contiguous(memory_format=torch.channels_last) else conv(x)


class PackedConv2d(nn.Conv2d):
    """A convolution of the inference form, by packed filters where they serve: see :func:`convolve`.

    Example:
        >>> conv = nn.Conv2d(8, 6, 3, padding=1).requires_grad_(False)
        >>> PackedConv2d.of(conv)(torch.randn(1, 8, 16, 16)).shape
        torch.Size([1, 6, 16, 16])
    """

    relu = False

    @classmethod
    def of(cls, conv: nn.Conv2d) -> 'PackedConv2d':
        """The layer with the parameters of ``conv``, which has zeros at the border, in numbers of pixels."""
        return like(conv, cls, conv.weight, kernel_size=conv.kernel_size, padding=conv.padding)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C_in, H, W]`` -> ``[N, C_out, H', W']``."""
        if not is_compiling() and _is_packed(x, self):
            return _packed(x, self, self.relu, compare=False)
        y = super().forward(x)
        return F.relu(y) if self.relu else y


class PackedConv2dReLU(PackedConv2d):
    """``relu(PackedConv2d(x))`` in one operator, without gradient.

    Example:
        >>> conv = nn.Conv2d(8, 6, 3, padding=1).requires_grad_(False)
        >>> PackedConv2dReLU.of(conv)(torch.randn(1, 8, 32, 32)).min()
        tensor(0.)
    """

    relu = True


def _is_packed(x: Tensor, conv: nn.Conv2d) -> bool:
    if type(x) is not Tensor or conv.padding_mode != 'zeros' or isinstance(conv.padding, str):
        return False
    return has_packed_conv_kernel(x, conv.weight, conv.bias) and _fits(x, conv)


def _fits(x: Tensor, conv: nn.Conv2d) -> bool:
    """Whether torch takes such a map; else it says so."""
    numbers = zip(x.shape[2:], conv.kernel_size, conv.padding, conv.dilation)
    fits = all(size + 2 * pad > dilation * (side - 1) for size, side, pad, dilation in numbers)
    return fits and x.shape[1] == conv.in_channels


def _packed(x: Tensor, conv: nn.Conv2d, relu: bool = False, compare: bool = True) -> Tensor:
    sizes = conv.stride, conv.padding, conv.dilation, conv.groups
    return packed_conv2d(x, conv.weight, conv.bias, *sizes, relu, compare)
