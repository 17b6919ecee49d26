"""Layers: modules over the operators."""

from icconv_mm.layers.convert import to_inception, to_supernet
from icconv_mm.layers.deform_conv import DeformConv2d, ModulatedDeformConv2d
from icconv_mm.layers.feature_transformers import (
    DropBlock2d,
    GroundingTransformer,
    RenderingTransformer,
    SelfTransformer,
)
from icconv_mm.layers.inception_conv import ICConv2d, ICConv2dReLU
from icconv_mm.layers.integrated_batch_norm import IntegratedBatchNorm, IntegratedSyncBatchNorm, integrated_batch_norm
from icconv_mm.layers.memory_format import set_memory_format
from icconv_mm.layers.pyconv import PyConv2d, PyConv2dReLU
from icconv_mm.layers.pyramid_conv import PConvLayer, ScaleEqualizedConv2d
from icconv_mm.layers.to_standard import to_standard

__all__ = [
    'DeformConv2d',
    'DropBlock2d',
    'GroundingTransformer',
    'ICConv2d',
    'ICConv2dReLU',
    'IntegratedBatchNorm',
    'IntegratedSyncBatchNorm',
    'ModulatedDeformConv2d',
    'PConvLayer',
    'PyConv2d',
    'PyConv2dReLU',
    'RenderingTransformer',
    'ScaleEqualizedConv2d',
    'SelfTransformer',
    'integrated_batch_norm',
    'set_memory_format',
    'to_inception',
    'to_standard',
    'to_supernet',
]
