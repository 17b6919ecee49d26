"""Convolutions with the ReLU that follows them, for deployed networks (``icconv_mm.deploy``)."""

from icconv_mm.layers.convert import layer_like
from icconv_mm.layers.inception_conv import ICConv2d
from icconv_mm.layers.pyconv import PyConv2d
from icconv_mm.ops import inception_conv2d_relu, pyconv2d_relu


class ICConv2dReLU(ICConv2d):
    """``relu(ICConv2d(x))`` in one operator, without gradient; arguments and keys are those of ``ICConv2d``.

    Example:
        >>> conv = ICConv2d(8, 6, pattern=[(4, 1, 1), (2, 2, 4)]).requires_grad_(False)
        >>> ICConv2dReLU.of(conv)(torch.randn(1, 8, 32, 32)).min()
        tensor(0.)
    """

    operator = staticmethod(inception_conv2d_relu)

    @classmethod
    def of(cls, conv: ICConv2d) -> 'ICConv2dReLU':
        """The layer with the parameters of ``conv``."""
        return layer_like(conv, cls, conv.weight, pattern=conv.pattern)


class PyConv2dReLU(PyConv2d):
    """``relu(PyConv2d(x))`` in one operator, without gradient; arguments and keys are those of ``PyConv2d``.

    Example:
        >>> conv = PyConv2d(16, out_channels=[8, 8], kernel_sizes=[3, 5], groups=[1, 4]).requires_grad_(False)
        >>> PyConv2dReLU.of(conv)(torch.randn(1, 16, 32, 32)).min()
        tensor(0.)
    """

    operator = staticmethod(pyconv2d_relu)

    @classmethod
    def of(cls, conv: PyConv2d) -> 'PyConv2dReLU':
        """The layer with the levels of ``conv``, which are plain convolutions."""
        channels, kernels = zip(*((level.out_channels, level.kernel_size) for level in conv.pyconv_levels))
        new = cls(conv.in_channels, channels, kernels, conv.groups, conv.stride, conv.dilation, device='meta')
        new.pyconv_levels = conv.pyconv_levels
        return new.train(conv.training)
