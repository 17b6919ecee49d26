"""Backbones."""

from icconv_mm.backbones.ic_resnet import ICResNet, ICResNetV1c, ICResNetV1d, ICResNeXt
from icconv_mm.backbones.pyconv_resnet import PyConvHGResNet, PyConvResNet
from icconv_mm.backbones.resnet import ResNet
from icconv_mm.backbones.wrapper import ICBackbone, PyConvBackbone
from icconv_mm.compat import MODELS
from icconv_mm.layers import ICConv2d, PyConv2d

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

# A config may name these layers as well: ICConv2d also as a conv_cfg; PyConv2d, with channels per level, only by type.
# They are registered here, because layers do not import the registry.
for _layer in (ICConv2d, PyConv2d):
    MODELS.register_module(module=_layer)
