"""Operators: functions of tensors, each with a plain PyTorch reference and optional compiled backends.

The modules here are the operators. What they are made of is in folders: ``reference`` holds each in plain PyTorch under
the same name, ``dispatch`` chooses what runs a call, ``definition`` registers operators and their gradients, and
``common`` is what these share. ``steps`` has what layers and deployed models call, not users.
"""

from icconv_mm.ops.dispatch.backend import (
    Answer,
    Explanation,
    Status,
    Verdict,
    backends,
    explain,
    forget_packed_weights,
    use_backend,
    use_kernel,
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
    'explain',
    'forget_packed_weights',
    'inception_conv2d',
    'inception_conv2d_relu',
    'mixture_attention',
    'pyconv2d',
    'pyconv2d_relu',
    'use_backend',
    'use_kernel',
    'window_attention',
]
