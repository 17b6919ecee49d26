"""Operators: functions of tensors, each with a plain PyTorch reference and optional compiled backends.

Each operator is one module: the function, the rules of its kernels, its reference, its registration. ``dispatch``
chooses the backend of a call, ``library`` defines operators for torch, ``convolution`` those of both convolutions, and
``tensors`` has shared checks and casts. ``integrated_norm`` and ``pyramid_sum`` are for layers, not for users.
"""

from icconv_mm.ops.deform_conv import deform_conv2d
from icconv_mm.ops.dispatch import (
    Answer,
    Explanation,
    Status,
    Verdict,
    backends,
    explain,
    forget_packed_weights,
    use_backend,
)
from icconv_mm.ops.inception_conv import inception_conv2d, inception_conv2d_relu
from icconv_mm.ops.mixture_attention import mixture_attention
from icconv_mm.ops.pyconv import pyconv2d, pyconv2d_relu
from icconv_mm.ops.window_attention import window_attention

__all__ = [
    'Answer',
    'Explanation',
    'Status',
    'Verdict',
    'backends',
    'deform_conv2d',
    'explain',
    'forget_packed_weights',
    'inception_conv2d',
    'inception_conv2d_relu',
    'mixture_attention',
    'pyconv2d',
    'pyconv2d_relu',
    'use_backend',
    'window_attention',
]
