"""Backbones."""

from icconv_mm.backbones.ic_resnet import ICResNet, ICResNeXt
from icconv_mm.backbones.pyconv_resnet import PyConvHGResNet, PyConvResNet

__all__ = ['ICResNeXt', 'ICResNet', 'PyConvHGResNet', 'PyConvResNet']
