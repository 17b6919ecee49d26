"""Ordinary convolutions of the inference form on a GPU: convolution, bias, addition and ReLU in one kernel of cuDNN.

torch computes a convolution with bias, the addition of a shortcut and ReLU as four kernels, each of which passes over
the map. cuDNN has them as one, which torch offers as ``cudnn_convolution_relu`` and ``cudnn_convolution_add_relu``.
"""

import logging
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from icconv_mm.layers.inference_conv import InferenceConv2d
from icconv_mm.layers.packed_conv import output_shape, settings_of
from icconv_mm.utils.torch_private import in_transform_or_mode, is_jit_or_onnx_tracing

_log = logging.getLogger(__name__)

_DEVICE = 'cuda'


class CudnnConv2d(InferenceConv2d):
    """A convolution of the inference form, which takes the addition of a shortcut and ReLU.

    Where cuDNN does not serve, or somebody looks at the single steps, torch's ordinary operators compute the same.

    Example:
        >>> conv = nn.Conv2d(8, 6, 3, padding=1).requires_grad_(False)
        >>> CudnnConv2d.of(conv).add_relu(torch.randn(1, 8, 16, 16), torch.randn(1, 6, 16, 16)).min()
        tensor(0.)
    """

    def forward(self, input: Tensor) -> Tensor:
        """``[N, C_in, H, W]`` -> ``[N, C_out, H', W']``."""
        if self.relu and _is_fused(input, self.weight):
            return torch.cudnn_convolution_relu(input, self.weight, self.bias, *settings_of(self))
        return super().forward(input)

    def add_relu(self, x: Tensor, z: Tensor, overwrite: bool = False) -> Tensor:
        """As of an :class:`InferenceConv2d`; cuDNN makes no use of ``overwrite``."""
        if _is_fused(x, self.weight) and _is_fused(z, self.weight) and z.shape == output_shape(self, x):
            return torch.cudnn_convolution_add_relu(x, self.weight, z, 1.0, self.bias, *settings_of(self))
        return super().add_relu(x, z)


class CudnnConv2dReLU(CudnnConv2d):
    """``relu(CudnnConv2d(x))`` in one kernel, without gradient.

    Example:
        >>> conv = nn.Conv2d(8, 6, 3, padding=1).requires_grad_(False)
        >>> CudnnConv2dReLU.of(conv)(torch.randn(1, 8, 16, 16)).min()
        tensor(0.)
    """

    relu = True


def _is_fused(x: Tensor, weight: Tensor) -> bool:
    """Whether cuDNN computes such a call as one kernel, and nothing looks at the single steps or needs a gradient."""
    if in_transform_or_mode() or is_jit_or_onnx_tracing():
        return False
    if torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad):
        return False
    if type(x) is not Tensor or x.ndim != 4 or x.numel() == 0 or x.device.type != _DEVICE:
        return False
    return x.dtype == weight.dtype and not torch.is_autocast_enabled() and torch.backends.cudnn.enabled


def is_fused_by_cudnn(weight: Tensor) -> bool:
    """Whether a weight is on a GPU whose cuDNN computes what it must for the weight's dtype."""
    return weight.device.type == _DEVICE and _works(weight.device, weight.dtype)


@cache
def _works(device: torch.device, dtype: torch.dtype) -> bool:
    """Tries both forms on a small map; some versions of cuDNN lack them for some dtypes."""
    if not torch.backends.cudnn.is_available():
        return False
    # no random numbers: what follows is to draw the same ones whether it comes here or not
    x, weight = torch.arange(1024.0).sin().view(1, 16, 8, 8), torch.arange(2304.0).cos().view(16, 16, 3, 3)
    x, weight = (each.to(device, dtype).contiguous(memory_format=torch.channels_last) for each in (x, weight))
    settings = weight.new_ones(16), (1, 1), (1, 1), (1, 1), 1
    try:
        rectified = torch.cudnn_convolution_relu(x, weight, *settings)
        added = torch.cudnn_convolution_add_relu(x, weight, x, 1.0, *settings)
    except RuntimeError as error:
        _log.info('cuDNN does not fuse %s convolutions with what follows: %s', dtype, error)
        return False
    y = F.conv2d(x.float(), weight.float(), padding=1) + 1
    pairs = (rectified, y.relu()), (added, (y + x.float()).relu())
    return all(torch.allclose(one.float(), other, rtol=0.02, atol=0.2) for one, other in pairs)
