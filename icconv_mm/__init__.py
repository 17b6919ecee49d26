"""Backbones and necks of four papers for OpenMMLab 2.x: IC-Conv, SEPC, FPT and PyConv.

``custom_imports = dict(imports=['icconv_mm'])`` in a config makes every module available as ``icconv_mm.Name``.
Importing the package is cheap: modules are loaded when a registry is first asked for one, task libraries (mmdet, mmseg,
mmpose, mmpretrain) only when a config needs them.
"""
from . import versions
from ._version import __version__

versions.check()  # before the imports below, which would fail on an unsupported library with a less helpful error

from . import backbones, checkpoints, layers, necks, ops, patterns, registry  # noqa: E402

__all__ = ['__version__', 'backbones', 'checkpoints', 'layers', 'necks', 'ops', 'patterns', 'registry', 'versions']
