"""Ordinary convolutions in inference, with their filters in the order that oneDNN reads fastest."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from icconv_mm.layers.inference_conv import InferenceConv2d, has_zero_border, output_shape, settings_of
from icconv_mm.ops.steps.packed_conv import has_packed_conv_kernel, packed_conv2d, packed_conv2d_add_relu_
from icconv_mm.utils.torch_private import is_compiling, must_be_called


def convolve(x: Tensor, conv: nn.Module) -> Tensor:
    """``conv(x)``; where nothing is recorded, an ordinary convolution of a channels_last map runs by packed filters.

    Args:
        x: ``[N, C_in, H, W]``.
        conv: A convolution, of whatever kind.

    Returns:
        ``[N, C_out, H', W']``.
    """
    if is_compiling() or type(conv) is not nn.Conv2d or must_be_called(conv) or not _is_packed(x, conv):
        return conv(x)
    return _packed(x, conv) if x.is_contiguous(memory_format=torch.channels_last) else conv(x)


class PackedConv2d(InferenceConv2d):
    """A convolution of a deployed network, by packed filters where they serve: see :func:`convolve`.

    Example:
        >>> conv = nn.Conv2d(8, 6, 3, padding=1).requires_grad_(False)
        >>> PackedConv2d.of(conv)(torch.randn(1, 8, 16, 16)).shape
        torch.Size([1, 6, 16, 16])
    """

    def forward(self, input: Tensor) -> Tensor:
        """``[N, C_in, H, W]`` -> ``[N, C_out, H', W']``."""
        if not is_compiling() and _is_packed(input, self):
            return _packed(input, self, self.relu)
        return super().forward(input)

    def add_relu(self, x: Tensor, z: Tensor, overwrite: bool = False) -> Tensor:
        """As of an :class:`InferenceConv2d`; written over z where it can be, as a new map costs more than the sum."""
        if overwrite and _is_packed(x, self) and self._may_overwrite(z, x):
            packed_conv2d_add_relu_(z, x, self.weight, self.bias, *settings_of(self))
            return z
        y = self(x)
        y += z  # in place: no gradient needs what a convolution made
        return F.relu_(y)

    def _may_overwrite(self, z: Tensor, x: Tensor) -> bool:
        """Whether z is as the output would be, and no gradient needs it."""
        if type(z) is not Tensor or (torch.is_grad_enabled() and z.requires_grad) or z.dtype != x.dtype:
            return False
        return z.shape == output_shape(self, x) and z.is_contiguous(memory_format=torch.channels_last)


class PackedConv2dReLU(PackedConv2d):
    """``relu(PackedConv2d(x))`` in one operator, without gradient.

    Example:
        >>> conv = nn.Conv2d(8, 6, 3, padding=1).requires_grad_(False)
        >>> PackedConv2dReLU.of(conv)(torch.randn(1, 8, 32, 32)).min()
        tensor(0.)
    """

    relu = True


def _is_packed(x: Tensor, conv: nn.Conv2d) -> bool:
    if type(x) is not Tensor or type(conv.weight) not in (nn.Parameter, Tensor):  # a quantised or sharded weight, say
        return False
    return has_zero_border(conv) and has_packed_conv_kernel(x, conv.weight, conv.bias) and _fits(x, conv)


def _fits(x: Tensor, conv: nn.Conv2d) -> bool:
    """Whether torch takes such a map, else it says so, and oneDNN, which has crashed at borders beyond a kernel."""
    numbers = zip(x.shape[2:], conv.kernel_size, conv.padding, conv.dilation)
    fits = all(size + 2 * pad > dilation * (side - 1) >= pad for size, side, pad, dilation in numbers)
    return fits and x.shape[1] == conv.in_channels


def _packed(x: Tensor, conv: nn.Conv2d, relu: bool = False) -> Tensor:
    return packed_conv2d(x, conv.weight, conv.bias, *settings_of(conv), relu)
