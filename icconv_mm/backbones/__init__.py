"""Backbones."""

from icconv_mm.backbones.ic_resnet import ICResNet, ICResNetV1c, ICResNetV1d, ICResNeXt
from icconv_mm.backbones.pyconv_resnet import PyConvHGResNet, PyConvResNet
from icconv_mm.backbones.resnet import ResNet
from icconv_mm.backbones.wrapper import ICBackbone, PyConvBackbone
from icconv_mm.bricks import MODELS
from icconv_mm.layers import ICConv2d, PyConv2d

# ICConv2d is a conv_cfg, too; PyConv2d has channels by level and is built by its type alone. Layers need no registry.
for _layer in (ICConv2d, PyConv2d):
    MODELS.register_module(module=_layer)

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
