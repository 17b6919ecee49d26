"""Layers: modules over the operators."""

from icconv_mm.layers.convert import to_inception, to_supernet
from icconv_mm.layers.drop_block import DropBlock2d
from icconv_mm.layers.feature_transformers import GroundingTransformer, RenderingTransformer, SelfTransformer
from icconv_mm.layers.ic_conv import ICConv2d

__all__ = [
    'DropBlock2d',
    'GroundingTransformer',
    'ICConv2d',
    'RenderingTransformer',
    'SelfTransformer',
    'to_inception',
    'to_supernet',
]
