"""Layers: modules over the operators."""

from icconv_mm.layers.convert import to_inception, to_supernet
from icconv_mm.layers.ic_conv import ICConv2d
from icconv_mm.layers.py_conv import PyConv2d

__all__ = ['ICConv2d', 'PyConv2d', 'to_inception', 'to_supernet']
