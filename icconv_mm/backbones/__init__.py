"""Backbones."""

from icconv_mm.backbones.ic_resnet import ICResNet, ICResNetV1c, ICResNetV1d, ICResNeXt
from icconv_mm.backbones.pyconv_resnet import PyConvHGResNet, PyConvResNet
from icconv_mm.backbones.resnet import ResNet
from icconv_mm.backbones.wrapper import ICBackbone, PyConvBackbone

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
