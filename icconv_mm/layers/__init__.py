"""Layers: modules over the operators."""

from icconv_mm.layers.convert import to_inception, to_supernet
from icconv_mm.layers.ic_conv import ICConv2d

__all__ = ['ICConv2d', 'to_inception', 'to_supernet']
