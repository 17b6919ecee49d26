"""Faster inference of residual networks: packed filters, and norm, sum and ReLU in place.

torch passes the filters of a convolution to oneDNN in torch's own order at every call, for which oneDNN has slower
kernels; the fastest order depends on the size of the map. The compiled CPU operator keeps packed filters beside the
weights, as inception convolutions do. After a convolution torch runs a step each for norm, sum and ReLU, and
the norm makes a new map; the compiled operator passes over memory once, in the map that the convolution made.

Both steps follow one rule (:func:`_may_run`), and write in place only to a map that provably has no other user: the
new output of a convolution (:func:`makes_new_map`). Each call checks modules and hooks. Everywhere else torch's own
operators run, the reference of both.

Neither is an operator of ``torch.library``: its dispatch would cost more than a small map takes.
"""

import logging
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from icconv_mm.ops.compiled_library import missing_kernel
from icconv_mm.ops.dispatch import requested
from icconv_mm.ops.tensors import is_autocast
from icconv_mm.torch_private import in_transform_or_mode, is_compiling, is_jit_or_onnx_tracing, must_be_called

_log = logging.getLogger(__name__)

# exact types whose output is always new memory
_NEW_MAPS = nn.Conv2d, nn.BatchNorm2d, nn.SyncBatchNorm, nn.GroupNorm, nn.InstanceNorm2d


# --- conditions


def _may_run(x: Tensor, *others: Tensor | None) -> bool:
    """The rule of both steps: ordinary tensors on the CPU, nothing recorded, the CPU's backend in use or none.

    ``x`` is the input map (:func:`_is_map`). Recorded are gradients, and calls in a transform, a mode or a trace.
    """
    if in_transform_or_mode() or is_jit_or_onnx_tracing() or requested() not in ('auto', 'cpu'):
        return False
    tensors = [x, *(other for other in others if other is not None)]
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        return False
    # quantised and sharded weights have other types
    return all(type(tensor) in (Tensor, nn.Parameter) and tensor.device.type == 'cpu' for tensor in tensors)


def _is_map(x: Tensor) -> bool:
    """Whether x is a map ``[N, C, H, W]`` of numbers, and no symbol; checked first, as reading a parameter is traced.

    torch 2.1 compiles no type(x).
    """
    return not is_compiling() and type(x) is Tensor and x.ndim == 4


def makes_new_map(module: nn.Module) -> bool:
    """Whether a module's output is new memory without another user, given its class and hooks now.

    Classes of this package have the attribute ``makes_new_map``.
    """
    return (type(module) in _NEW_MAPS or declares(module, 'makes_new_map')) and not must_be_called(module)


def declares(module: nn.Module, what: str) -> bool:
    """Whether the exact class of a module has a true attribute: a subclass may behave differently."""
    return bool(vars(type(module)).get(what))


# --- packed filters


def convolve(x: Tensor, conv: nn.Module) -> Tensor:
    """``conv(x)``; if nothing is recorded, an ordinary convolution of a channels_last map uses packed filters.

    ``[N, C_in, H, W]`` -> ``[N, C_out, H', W']``.
    """
    if not _is_map(x) or type(conv) is not nn.Conv2d or must_be_called(conv) or not is_packed(x, conv):
        return conv(x)
    return packed_conv2d(x, conv) if x.is_contiguous(memory_format=torch.channels_last) else conv(x)


def is_packed(x: Tensor, conv: nn.Conv2d) -> bool:
    """Whether :func:`packed_conv2d` may run: its kernel supports the call, and nothing observes single steps."""
    if not (_is_map(x) and has_zero_border(conv) and _may_run(x, conv.weight, conv.bias)):
        return False
    if x.dtype != conv.weight.dtype or x.numel() == 0 or is_autocast('cpu'):
        return False
    numbers = zip(x.shape[2:], conv.kernel_size, conv.padding, conv.dilation)
    # torch refuses other maps, and oneDNN has crashed at borders beyond a kernel
    fits = all(size + 2 * pad > dilation * (side - 1) >= pad for size, side, pad, dilation in numbers)
    return torch.backends.mkldnn.enabled and packs(x.dtype) and fits and x.shape[1] == conv.in_channels


def has_zero_border(conv: nn.Conv2d) -> bool:
    """Whether a convolution has zeros at the border, in numbers of pixels."""
    return conv.padding_mode == 'zeros' and not isinstance(conv.padding, str)


def packed_conv2d(x: Tensor, conv: nn.Conv2d, relu: bool = False) -> Tensor:
    """``conv(x)``, then optionally ReLU, without gradient, for a map for which :func:`is_packed` holds.

    ``[N, C_in, H, W]`` -> ``[N, C_out, H', W']``, channels_last.

    Raises:
        RuntimeError: If shapes or dtypes do not fit; the message names them.
    """
    run = torch.ops.icconv_mm.packed_conv2d_compiled.default  # exists only after the library is loaded
    return run(x, conv.weight, conv.bias, *_settings(conv), relu)


def packed_conv2d_add_relu_(z: Tensor, x: Tensor, conv: nn.Conv2d) -> None:
    """``z = relu(conv(x) + z)``, in place and without gradient, for the maps of :func:`packed_conv2d`.

    ``z`` is channels_last and of the dtype of ``x``.

    Raises:
        RuntimeError: If shapes, dtypes or the memory format of z do not fit; the message names them.
    """
    run = torch.ops.icconv_mm.packed_conv2d_add_relu__compiled.default
    run(z, x, conv.weight, conv.bias, *_settings(conv))


def _settings(conv: nn.Conv2d) -> tuple:
    return conv.stride, conv.padding, conv.dilation, conv.groups


@cache
def packs(dtype: torch.dtype) -> bool:
    """Whether the operators exist and give correct results on a small map.

    torch's build or the processor may lack a dtype.
    """
    if not torch.backends.mkldnn.is_available() or missing_kernel('packed_conv2d_compiled', 'cpu') is not None:
        return False
    conv = nn.Conv2d(16, 16, 3, padding=1, device='meta')
    # no random numbers: this check must not change those of the caller
    x, weight = torch.arange(1024.0).sin().view(1, 16, 8, 8), torch.arange(2304.0).cos().view(16, 16, 3, 3)
    x, weight = (tensor.to(dtype).contiguous(memory_format=torch.channels_last) for tensor in (x, weight))
    conv.weight, conv.bias = (nn.Parameter(tensor, False) for tensor in (weight, weight.new_ones(16)))
    try:
        z = x.clone()
        packed_conv2d_add_relu_(z, x, conv)
        outputs = packed_conv2d(x, conv), packed_conv2d(x, conv, relu=True), z
    except RuntimeError as error:
        _log.info('oneDNN does not serve convolutions in %s: %s', dtype, error)
        return False
    y = F.conv2d(x.float(), weight.float(), padding=1) + 1
    expected = y, y.relu(), (y + x.float()).relu()
    return all(torch.allclose(one.float(), other, rtol=0.02, atol=0.2) for one, other in zip(outputs, expected))


# --- norm, sum and ReLU


def norm_relu(
    x: Tensor, conv: nn.Module, norm: nn.Module, relu: nn.Module | None = None, shortcut: Tensor | None = None
) -> Tensor:
    """``relu(norm(x) + shortcut)``.

    In evaluation, if nothing is recorded, this runs in place, in one pass over memory: maps are larger than caches, so
    each pass less saves time, and each map less saves memory.

    Args:
        x: ``[N, C, H, W]``, the output of ``conv`` without another user.
        conv: The module with this output. Unless it :func:`makes_new_map`, ``x`` is not changed.
        norm: A norm.
        relu: An activation, or None.
        shortcut: ``[N, C, H, W]``, or None.

    Returns:
        ``[N, C, H, W]``; x itself if batch norm runs in place.
    """
    if _runs_in_place(x, conv, norm, relu, shortcut):
        _batch_norm_relu_(x, norm, shortcut, relu is not None)
        return x
    x = norm(x)
    if shortcut is not None:
        x = add(x, shortcut, conv, norm)
    return x if relu is None else relu(x)


def add(x: Tensor, shortcut: Tensor, conv: nn.Module, norm: nn.Module) -> Tensor:
    """``x + shortcut``, in place if ``x``, the output of conv and norm, is a new map of one of them."""
    if is_compiling() or not (makes_new_map(conv) or makes_new_map(norm)):
        return x + shortcut
    x += shortcut  # no norm reads its output again
    return x


def _runs_in_place(
    x: Tensor, conv: nn.Module, norm: nn.Module, relu: nn.Module | None, shortcut: Tensor | None
) -> bool:
    if not _is_map(x) or type(norm) is not nn.BatchNorm2d or norm.training or type(relu) not in (nn.ReLU, type(None)):
        return False
    if not _may_run(x, norm.weight, norm.bias, shortcut) or not has_batch_norm_kernel(x, norm, shortcut):
        return False
    return makes_new_map(conv) and not must_be_called(norm, relu)


def has_batch_norm_kernel(x: Tensor, norm: nn.BatchNorm2d, shortcut: Tensor | None = None) -> bool:
    """Whether the compiled library has a kernel for such a map, norm and shortcut."""
    weight, mean = norm.weight, norm.running_mean
    if weight is None or mean is None:
        return False
    if shortcut is not None and (shortcut.shape != x.shape or shortcut.dtype != x.dtype):
        return False
    exact = torch.float64 if x.dtype == torch.float64 else torch.float32
    is_dense = x.is_contiguous(memory_format=torch.channels_last) or x.is_contiguous()
    if weight.dtype != mean.dtype or weight.dtype not in (exact, x.dtype) or not is_dense:
        return False
    return missing_kernel('batch_norm_relu__compiled', 'cpu') is None


def _batch_norm_relu_(x: Tensor, norm: nn.BatchNorm2d, shortcut: Tensor | None, relu: bool) -> None:
    """``x = (x - mean) / sqrt(var + eps) * weight + bias``, then ``+ shortcut``, then ReLU, in place."""
    run = torch.ops.icconv_mm.batch_norm_relu__compiled.default
    run(x, norm.weight, norm.bias, norm.running_mean, norm.running_var, norm.eps, shortcut, relu)


class Shortcut(nn.Sequential):
    """Pooling, a convolution and its norm: the shortcut of a block that changes the shape of maps."""

    def forward(self, x: Tensor) -> Tensor:
        *before, conv, norm = self
        for layer in before:
            x = layer(x)
        return norm_relu(convolve(x, conv), conv, norm)


def set_norms_eval(network: nn.Module) -> None:
    """Sets the batch norms of a network, integrated ones included, to use their running statistics."""
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            module.eval()
