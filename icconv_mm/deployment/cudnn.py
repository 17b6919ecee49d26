"""The inference form on a GPU: convolution, bias, addition and ReLU in one kernel of cuDNN.

torch computes a convolution with bias, the addition of a shortcut and ReLU as four kernels, each of which passes over
the map. cuDNN has them as one, which torch offers as ``cudnn_convolution_relu`` and ``cudnn_convolution_add_relu``.
"""

import logging
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from icconv_mm.layers.packed_conv import output_shape
from icconv_mm.utils.torch_private import is_traced

_log = logging.getLogger(__name__)


class Conv2dAddReLU(nn.Conv2d):
    """``relu(conv(x) + z)``, z being left out where there is none; for inference."""

    @classmethod
    def of(cls, conv: nn.Conv2d) -> 'Conv2dAddReLU':
        """The layer with the weight of ``conv`` and its bias, or zeros, without which torch would make them anew."""
        size = conv.in_channels, conv.out_channels, conv.kernel_size
        new = cls(*size, conv.stride, conv.padding, conv.dilation, conv.groups, device='meta')
        new.weight = conv.weight
        zeros = conv.weight.new_zeros(conv.out_channels)
        new.bias = nn.Parameter(zeros if conv.bias is None else conv.bias.detach(), requires_grad=False)
        return new.eval()

    def forward(self, x: Tensor, z: Tensor | None = None) -> Tensor:
        """``[N, C_in, H, W]``, and z of the output's shape or one that broadcasts -> ``[N, C_out, H', W']``."""
        settings = self.stride, self.padding, self.dilation, self.groups
        if is_fused(x, self.weight) and not is_traced():
            if z is None:
                return torch.cudnn_convolution_relu(x, self.weight, self.bias, *settings)
            if z.shape == output_shape(x, self) and z.dtype == x.dtype:
                return torch.cudnn_convolution_add_relu(x, self.weight, z, 1.0, self.bias, *settings)
        y = F.conv2d(x, self.weight, self.bias, *settings)
        return F.relu(y if z is None else y + z)


def is_fused(x: Tensor, weight: Tensor) -> bool:
    """Whether cuDNN computes such a call as one kernel."""
    return x.is_cuda and x.dtype == weight.dtype and not torch.is_autocast_enabled() and torch.backends.cudnn.enabled


def is_supported(model: nn.Module) -> bool:
    """Whether a model is on a GPU whose cuDNN computes what it must for the model's dtype."""
    weight = next((p for p in model.parameters() if p.is_cuda and p.ndim == 4), None)
    return weight is not None and _works(weight.device, weight.dtype)


@cache
def _works(device: torch.device, dtype: torch.dtype) -> bool:
    """Tries both forms on a small map; some versions of cuDNN lack them for some dtypes."""
    if not torch.backends.cudnn.is_available():
        return False
    conv = nn.Conv2d(16, 16, 3, padding=1, device=device, dtype=dtype).requires_grad_(False)
    conv = conv.to(memory_format=torch.channels_last)
    layer = Conv2dAddReLU.of(conv)
    x = torch.randn(1, 16, 8, 8, device=device, dtype=dtype).contiguous(memory_format=torch.channels_last)
    try:
        with torch.inference_mode():
            pairs = [(layer(x), conv(x).relu()), (layer(x, x), (conv(x) + x).relu())]
    except RuntimeError as error:
        _log.info('cuDNN does not fuse %s convolutions with what follows: %s', dtype, error)
        return False
    return all(torch.allclose(one.float(), other.float(), rtol=0.02, atol=0.02) for one, other in pairs)
