"""Backbones."""

from icconv_mm.backbones.ic_resnet import ICResNet, ICResNetV1c, ICResNetV1d, ICResNeXt
from icconv_mm.backbones.pyconv_resnet import PyConvHGResNet, PyConvResNet
from icconv_mm.backbones.resnet import ResNet
from icconv_mm.backbones.wrapper import Inception, Pyramidal, inception_backbone, pyconv_backbone
from icconv_mm.bricks import MODELS
from icconv_mm.layers import ICConv2d, PyConv2d

for _layer in (ICConv2d, PyConv2d):  # for a conv_cfg; layers themselves need no registry
    MODELS.register_module(module=_layer)

__all__ = [
    'ICResNeXt',
    'ICResNet',
    'ICResNetV1c',
    'ICResNetV1d',
    'Inception',
    'PyConvHGResNet',
    'PyConvResNet',
    'Pyramidal',
    'ResNet',
    'inception_backbone',
    'pyconv_backbone',
]
