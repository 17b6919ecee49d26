"""Ordinary convolutions of deployed networks (``icconv_mm.deploy``) on the CPU."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from icconv_mm.layers.fast_eval import is_packed, packed_conv2d, packed_conv2d_add_relu_
from icconv_mm.layers.settings import layer_like


class PackedConv2d(nn.Conv2d):
    """A convolution with packed filters where possible (:mod:`icconv_mm.layers.fast_eval`), torch's own elsewhere.

    Example:
        >>> conv = nn.Conv2d(8, 6, 3, padding=1).requires_grad_(False)
        >>> PackedConv2d.of(conv)(torch.randn(1, 8, 16, 16)).shape
        torch.Size([1, 6, 16, 16])
    """

    relu = False  # whether ReLU follows
    # of this exact class: see icconv_mm.layers.fast_eval and icconv_mm.backbones.blocks
    makes_new_map = frees_input = takes_sum = True

    @classmethod
    def of(cls, conv: nn.Conv2d) -> 'PackedConv2d':
        """Returns the layer with the parameters of ``conv``."""
        return layer_like(conv, cls)

    def forward(self, input: Tensor) -> Tensor:
        """``[N, C_in, H, W]`` -> ``[N, C_out, H', W']``."""
        if is_packed(input, self):
            return packed_conv2d(input, self, self.relu)
        y = super().forward(input)
        return F.relu(y) if self.relu else y

    def add_relu(self, x: Tensor, z: Tensor, overwrite: bool = False) -> Tensor:
        """``relu(self(x) + z)``.

        Args:
            x: ``[N, C_in, H, W]``.
            z: ``[N, C_out, H', W']``.
            overwrite: Whether z has no other user. The result then overwrites z if possible, as a new map costs more
                than the sum.

        Returns:
            ``[N, C_out, H', W']``; z itself if it was overwritten.
        """
        if overwrite and is_packed(x, self) and self._may_overwrite(z, x):
            packed_conv2d_add_relu_(z, x, self)
            return z
        y = self(x)
        y += z  # in place: no gradient needs the output of a convolution
        return F.relu_(y)

    def _may_overwrite(self, z: Tensor, x: Tensor) -> bool:
        """Whether z has the format of the output, and no gradient needs it."""
        if type(z) is not Tensor or (torch.is_grad_enabled() and z.requires_grad) or z.dtype != x.dtype:
            return False
        return z.shape == self.output_shape(x) and z.is_contiguous(memory_format=torch.channels_last)

    def output_shape(self, x: Tensor) -> tuple[int, ...]:
        """Returns ``(N, C_out, H', W')``, the shape of the output for ``x``."""
        numbers = zip(x.shape[2:], self.kernel_size, self.stride, self.padding, self.dilation)
        sides = ((size + 2 * pad - dil * (side - 1) - 1) // step + 1 for size, side, step, pad, dil in numbers)
        return x.shape[0], self.out_channels, *sides


class PackedConv2dReLU(PackedConv2d):
    """``relu(PackedConv2d(x))``, without gradient if filters are packed.

    Example:
        >>> conv = nn.Conv2d(8, 6, 3, padding=1).requires_grad_(False)
        >>> PackedConv2dReLU.of(conv)(torch.randn(1, 8, 32, 32)).min()
        tensor(0.)
    """

    relu = makes_new_map = frees_input = True
    takes_sum = False  # the sum would come before ReLU
