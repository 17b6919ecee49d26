"""Ordinary convolutions of deployed networks (``icconv_mm.deploy``)."""

import torch.nn.functional as F
from torch import Tensor, nn

from icconv_mm.layers.convert import layer_like


class InferenceConv2d(nn.Conv2d):
    """A convolution that takes ReLU and the addition of a shortcut; a subclass says what computes them as one.

    What is here is by torch's ordinary operators, for where that does not serve.
    """

    relu = False  # whether ReLU follows

    @classmethod
    def of(cls, conv: nn.Conv2d) -> 'InferenceConv2d':
        """The layer with the parameters of ``conv``, which :func:`has_zero_border`."""
        return layer_like(conv, cls, conv.weight, kernel_size=conv.kernel_size, padding=conv.padding)

    def forward(self, input: Tensor) -> Tensor:
        """``[N, C_in, H, W]`` -> ``[N, C_out, H', W']``."""
        y = super().forward(input)
        return F.relu(y) if self.relu else y

    def add_relu(self, x: Tensor, z: Tensor, overwrite: bool = False) -> Tensor:
        """``relu(self(x) + z)``.

        Args:
            x: ``[N, C_in, H, W]``.
            z: ``[N, C_out, H', W']``.
            overwrite: Whether nobody needs z any more, so that the result may lie where z was.

        Returns:
            ``[N, C_out, H', W']``; z itself where it was written over.
        """
        return F.relu(self(x) + z)


def has_zero_border(conv: nn.Conv2d) -> bool:
    """Whether a convolution has zeros at the border, in numbers of pixels."""
    return conv.padding_mode == 'zeros' and not isinstance(conv.padding, str)


def settings_of(conv: nn.Conv2d) -> tuple:
    """Stride, padding, dilation and groups, in the order in which operators take them."""
    return conv.stride, conv.padding, conv.dilation, conv.groups


def output_shape(conv: nn.Conv2d, x: Tensor) -> tuple[int, ...]:
    """``(N, C_out, H', W')`` of what a convolution makes of ``x``; its padding is in numbers of pixels."""
    numbers = zip(x.shape[2:], conv.kernel_size, conv.stride, conv.padding, conv.dilation)
    sides = ((size + 2 * pad - dil * (side - 1) - 1) // step + 1 for size, side, step, pad, dil in numbers)
    return x.shape[0], conv.out_channels, *sides
