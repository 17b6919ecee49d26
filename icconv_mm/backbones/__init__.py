"""Backbones."""

from icconv_mm.backbones.ic_resnet import ICResNet, ICResNeXt

__all__ = ['ICResNeXt', 'ICResNet']
