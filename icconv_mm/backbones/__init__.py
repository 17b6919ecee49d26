"""Backbones."""

from icconv_mm.backbones.ic_resnet import ICResNet, ICResNetV1c, ICResNetV1d, ICResNeXt
from icconv_mm.backbones.pyconv_resnet import PyConvHGResNet, PyConvResNet
from icconv_mm.backbones.resnet import ResNet
from icconv_mm.backbones.wrapper import ICBackbone, PyConvBackbone
from icconv_mm.compat import MODELS
from icconv_mm.layers import DeformConv2d, ICConv2d, ModulatedDeformConv2d, PyConv2d

__all__ = [
    'ICBackbone',
    'ICResNeXt',
    'ICResNet',
    'ICResNetV1c',
    'ICResNetV1d',
    'PyConvBackbone',
    'PyConvHGResNet',
    'PyConvResNet',
    'ResNet',
]

# A config may name these layers as well, all also as a conv_cfg but PyConv2d, which has channels per level. They are
# registered here, because layers do not import the registry.
for _layer in (DeformConv2d, ICConv2d, ModulatedDeformConv2d, PyConv2d):
    MODELS.register_module(module=_layer)
