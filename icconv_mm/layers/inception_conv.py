"""The module of the inception convolution."""

import functools
import inspect
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from icconv_mm.errors import InputError
from icconv_mm.layers.settings import layer_like
from icconv_mm.ops import inception_conv2d, inception_conv2d_relu
from icconv_mm.ops.inception_conv import exported_convolutions as inception_convolutions
from icconv_mm.patterns import DilationPattern
from icconv_mm.torch_private import refuse_script

_CONV2D = inspect.signature(nn.Conv2d.__init__)


def _takes_order_of_conv2d(init: Callable) -> Callable:
    """Lets an ``__init__`` with the keyword ``pattern`` accept the other arguments in the order of ``nn.Conv2d``.

    mmcv builds a layer from a ``conv_cfg`` in this order, with the entries of the config as keywords.
    """

    @functools.wraps(init)
    def __init__(self, *args, **options) -> None:
        if 'pattern' not in options or len(args) < 3:
            init(self, *args, **options)
            return
        pattern = {'pattern': options.pop('pattern')}
        init(**_CONV2D.bind(self, *args, **options).arguments | pattern)

    return __init__


class ICConv2d(nn.Conv2d):
    """A 3x3 convolution whose output channels have dilations of their own.

    It is an ``nn.Conv2d`` with the same weight ``[C_out, C_in / groups, 3, 3]`` under the same key: checkpoints,
    initialisation and norm folding treat it as the dense layer, only ``forward`` differs.

    With the keyword ``pattern`` the other arguments may have the order of ``nn.Conv2d``: the layer is a ``conv_cfg`` of
    mmcv's modules, ``dict(type='icconv_mm.ICConv2d', pattern=...)``.

    Args:
        in_channels: C_in.
        out_channels: C_out.
        pattern: A table of runs ``(out_channels, dilation_h, dilation_w)`` that sums to ``out_channels``, or to
            ``groups`` if it counts in groups (as published ResNeXt patterns do).
        kernel_size: 3, the only size that a pattern describes.
        stride: Stride of both axes; 1 by default.
        groups: Groups of channels, as in ``nn.Conv2d``; 1 by default.
        dilation: Factor of the dilations of the pattern, the dilation of the layer's stage: one number, or height and
            width; 1 by default.
        bias: Whether the layer has a bias; False by default.
        padding: Padding that keeps the size, which is ``dilation``; None, the default, means the same.
        device, dtype: Device and type of the parameters, as in ``nn.Conv2d``.

    Attributes:
        scaled_pattern: The pattern times the dilation of the layer, the argument of the operator.

    Raises:
        InputError: If the kernel size is not 3, the padding does not keep the size, the stride differs between the
            axes, or the pattern does not fit.

    Source: IC-Conv, https://arxiv.org/abs/2012.13587, section 3.1.

    Example:
        >>> conv = ICConv2d(8, 6, pattern=[(4, 1, 1), (2, 2, 4)], stride=2)
        >>> conv(torch.randn(1, 8, 32, 32)).shape
        torch.Size([1, 6, 16, 16])
    """

    operator = staticmethod(inception_conv2d)
    __prepare_scriptable__ = refuse_script
    makes_new_map = frees_input = True  # of this exact class: see icconv_mm.layers.fast_eval

    @_takes_order_of_conv2d
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        pattern: DilationPattern | Iterable[tuple[int, int, int]],
        kernel_size: int = 3,
        stride: int = 1,
        groups: int = 1,
        dilation: int | tuple[int, int] = 1,
        bias: bool = False,
        *,
        padding: int | tuple[int, int] | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        if kernel_size not in (3, (3, 3)):
            raise InputError(f'a dilation pattern needs kernel size 3, got {kernel_size}')
        settings = dict(stride=stride, padding=dilation, dilation=dilation, groups=groups, bias=bias)
        super().__init__(in_channels, out_channels, 3, **settings, device=device, dtype=dtype)
        sides = tuple(padding) if isinstance(padding, Iterable) else (padding, padding)
        if padding is not None and sides != self.padding:
            raise InputError(f'padding must be {self.padding}, which keeps the size, got {padding!r}')
        if self.stride[0] != self.stride[1]:
            raise InputError(f'the stride must be the same on both axes, got {self.stride}')
        self.pattern = DilationPattern.of(pattern).for_convolution(out_channels, groups)
        self.scaled_pattern = self.pattern.scaled(self.dilation)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C_in, H, W]`` -> ``[N, C_out, ceil(H / stride), ceil(W / stride)]``."""
        return self.convolve(x, self.weight)

    def convolve(self, x: Tensor, weight: Tensor) -> Tensor:
        """Computes ``forward`` with filters of a subclass."""
        return self.operator(x, weight, self.bias, self.scaled_pattern, self.stride[0], self.groups)

    @property
    def exported_convolutions(self) -> int:
        """Number of standard convolutions of the layer in an exported file."""
        return inception_convolutions(self.scaled_pattern.flat, self.in_channels, self.groups)

    def extra_repr(self) -> str:
        return f'{super().extra_repr()}, runs={len(self.pattern)}, max_dilation={self.pattern.max_dilation}'


class ICConv2dReLU(ICConv2d):
    """``relu(ICConv2d(x))`` in one operator, without gradient; arguments and keys are those of ``ICConv2d``.

    For deployed networks (:func:`icconv_mm.deploy`).

    Example:
        >>> conv = ICConv2d(8, 6, pattern=[(4, 1, 1), (2, 2, 4)]).requires_grad_(False)
        >>> ICConv2dReLU.of(conv)(torch.randn(1, 8, 32, 32)).min()
        tensor(0.)
    """

    operator = staticmethod(inception_conv2d_relu)
    makes_new_map = frees_input = True

    @classmethod
    def of(cls, conv: ICConv2d) -> 'ICConv2dReLU':
        """Returns the layer with the parameters of ``conv``."""
        return layer_like(conv, cls)
