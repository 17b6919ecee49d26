"""Operators: functions of tensors, each with a plain PyTorch reference and optional compiled backends."""

from icconv_mm.ops.backend import backends, explain, use_backend
from icconv_mm.ops.inception_conv import inception_conv2d
from icconv_mm.ops.pyconv import pyconv2d

__all__ = ['backends', 'explain', 'inception_conv2d', 'pyconv2d', 'use_backend']
