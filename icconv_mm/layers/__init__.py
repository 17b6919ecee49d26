"""Layers: modules over the operators."""

from icconv_mm._deprecated import renamed
from icconv_mm.layers.convert import to_inception, to_supernet
from icconv_mm.layers.drop_block import DropBlock2d
from icconv_mm.layers.feature_transformers import GroundingTransformer, RenderingTransformer, SelfTransformer
from icconv_mm.layers.fused_relu import ICConv2dReLU, PyConv2dReLU
from icconv_mm.layers.inception_conv import ICConv2d
from icconv_mm.layers.integrated_batch_norm import IntegratedBatchNorm, IntegratedSyncBatchNorm, integrated_batch_norm
from icconv_mm.layers.memory_format import set_memory_format
from icconv_mm.layers.pconv import PConvLayer
from icconv_mm.layers.pyconv import PyConv2d
from icconv_mm.layers.scale_equalized_conv import ScaleEqualizedConv2d

__all__ = [
    'DropBlock2d',
    'GroundingTransformer',
    'ICConv2d',
    'ICConv2dReLU',
    'IntegratedBatchNorm',
    'IntegratedSyncBatchNorm',
    'PConvLayer',
    'PyConv2d',
    'PyConv2dReLU',
    'RenderingTransformer',
    'ScaleEqualizedConv2d',
    'SelfTransformer',
    'integrated_batch_norm',
    'set_memory_format',
    'to_inception',
    'to_supernet',
]

__getattr__ = renamed(__name__)
