"""The layers that a config may name: :mod:`icconv_mm.registry` imports this when it is first asked for a module.

A module of its own, as what it imports loads mmcv, which layers do without.
"""

from icconv_mm.bricks import MODELS
from icconv_mm.layers.inception_conv import ICConv2d
from icconv_mm.layers.pyconv import PyConv2d

# ICConv2d is a conv_cfg, too; PyConv2d has channels by level and is built by its type alone
for _layer in (ICConv2d, PyConv2d):
    MODELS.register_module(module=_layer)
