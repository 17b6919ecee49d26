"""The inference form on a CPU: filters in the order that oneDNN reads fastest, and ReLU with the convolution.

torch hands oneDNN the filters of a convolution in torch's own order, at every call; for that order there are slower
kernels. Which order is the fastest depends on the size of the maps.
"""

import logging
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from icconv_mm.deployment.chains import is_plain
from icconv_mm.layers import PyConv2d
from icconv_mm.layers.convert import convert_all, like
from icconv_mm.layers.memory_format import with_contiguous_maps
from icconv_mm.ops.common.tensors import is_autocast
from icconv_mm.ops.dispatch import backend
from icconv_mm.utils.torch_private import is_observed, is_traced, onednn_convolution, onednn_filters

_log = logging.getLogger(__name__)


class PackedConv2d(nn.Conv2d):
    """A convolution for inference that keeps its filters as oneDNN wants them for maps of the size it saw last.

    Beside them it has the filters in torch's order, and copies, files and ``state_dict`` have those alone. A call that
    oneDNN does not take, such as one under autocast or within a compiler, is torch's convolution.

    Example:
        >>> conv = nn.Conv2d(8, 6, 3, padding=1).requires_grad_(False)
        >>> PackedConv2d.of(conv)(torch.randn(1, 8, 16, 16)).shape
        torch.Size([1, 6, 16, 16])
    """

    _relu = False
    _packed: tuple = None, None  # what packed filters depend on, and they themselves

    @classmethod
    def of(cls, conv: nn.Conv2d) -> 'PackedConv2d':
        """The layer with the parameters of ``conv``."""
        return like(conv, cls, conv.weight, kernel_size=conv.kernel_size, padding=conv.padding)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C_in, H, W]`` -> ``[N, C_out, H', W']``."""
        if self._takes(x):
            after = 'relu' if self._relu else 'none'
            return onednn_convolution(x, self._filters(x), self.bias, *self._settings(), after)
        y = super().forward(x)
        return F.relu(y) if self._relu else y

    def _settings(self) -> tuple:
        return self.padding, self.stride, self.dilation, self.groups

    def _takes(self, x: Tensor) -> bool:
        # the first question ends the trace of a compiler here
        if is_observed() or is_traced() or backend.requested() not in ('auto', 'cpu'):
            return False
        weight = self.weight
        if type(x) is not Tensor or x.ndim != 4 or x.numel() == 0 or not self._fits(x):
            return False
        if x.device.type != 'cpu' or weight.device.type != 'cpu' or x.dtype != weight.dtype or is_autocast('cpu'):
            return False
        records = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
        counts = not weight.is_inference()  # else nobody says when they have changed
        return counts and not records and torch.backends.mkldnn.enabled and _works(x.dtype)

    def _fits(self, x: Tensor) -> bool:
        """Whether torch takes such a map; its errors are clearer than oneDNN's."""
        numbers = zip(x.shape[2:], self.kernel_size, self.padding, self.dilation)
        return x.shape[1] == self.in_channels and all(
            size + 2 * pad > dilation * (side - 1) for size, side, pad, dilation in numbers
        )

    def _filters(self, x: Tensor) -> Tensor:
        state = x.shape, self.weight.dtype, self.weight.data_ptr(), self.weight._version
        seen, filters = self._packed  # read at once: other threads may be here
        if seen != state:
            filters = onednn_filters(self.weight, *self._settings(), x.shape)
            self._packed = state, filters
        return filters

    def __getstate__(self) -> dict:
        return {name: value for name, value in vars(self).items() if name != '_packed'}


class PackedConv2dReLU(PackedConv2d):
    """``relu(PackedConv2d(x))`` in one kernel.

    Example:
        >>> conv = nn.Conv2d(8, 6, 3, padding=1).requires_grad_(False)
        >>> PackedConv2dReLU.of(conv)(torch.randn(1, 8, 32, 32)).min()
        tensor(0.)
    """

    _relu = True


def packs(conv: nn.Module) -> bool:
    """Whether a convolution is a plain one that oneDNN takes, on the CPU."""
    return is_plain(conv) and conv.weight.device.type == 'cpu' and _works(conv.weight.dtype)


def pack(model: nn.Module) -> None:
    """Packs the plain convolutions inside a model, in place: those that are called, and may give channels_last maps."""
    kept = with_contiguous_maps(model)
    kept |= {level for module in model.modules() if isinstance(module, PyConv2d) for level in module.pyconv_levels}
    convs = [(name, conv) for name, conv in model.named_modules() if name and conv not in kept and packs(conv)]
    convert_all(model, convs, lambda conv, kind: kind.of(conv), [PackedConv2d] * len(convs))


@cache
def _works(dtype: torch.dtype) -> bool:
    """Tries both layers on a small map; torch's build, or the processor, may lack them for a dtype."""
    if not torch.backends.mkldnn.is_available():
        return False
    conv = nn.Conv2d(16, 16, 3, padding=1).to(dtype)
    x = torch.randn(1, 16, 8, 8).to(dtype)
    try:
        with torch.no_grad():
            settings = conv.padding, conv.stride, conv.dilation, conv.groups
            filters = onednn_filters(conv.weight, *settings, x.shape)
            got = [onednn_convolution(x, filters, conv.bias, *settings, after) for after in ('none', 'relu')]
            y = conv(x)
    except (RuntimeError, AttributeError, NotImplementedError) as error:
        _log.info('oneDNN does not pack the filters of %s convolutions: %s', dtype, error)
        return False
    return all(torch.allclose(one.float(), other.float(), atol=0.02) for one, other in zip(got, (y, y.relu())))
