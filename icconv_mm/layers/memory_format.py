"""The border of networks that compute in channels_last: maps come and leave in one format.

On CPUs convolutions and norms of channels_last maps are faster, but OpenMMLab's images are NCHW, and compiled operators
of others (mmcv 2.1 on a CPU: RoIAlign, deformable convolutions, and the functions under them) read memory as NCHW,
whatever the strides say. So what channels_last gains stays inside a network: its maps leave in the format in which the
image came.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from icconv_mm.errors import InputError
from icconv_mm.ops.tensors import LEAST_CHANNELS
from icconv_mm.ops.tensors import memory_format as format_of
from icconv_mm.torch_private import in_functorch, in_transform_or_mode, is_compiling, is_jit_or_onnx_tracing

MEMORY_FORMATS = ('auto', 'channels_last', 'preserve')

# float64 has no channels_last kernels on CPUs
_FAST_ON_CPU = (torch.float32, torch.bfloat16, torch.float16)

_LEAST_OF_FAST_COPY = 3600  # numbers

# Packages whose layers compute by torch's operators or ours, which read any strides. Other layers of a network that
# computes in channels_last get contiguous maps.
_READ_STRIDES = ('torch.', 'torchvision.', 'timm.', 'mmcv.cnn.', 'mmengine.', 'icconv_mm.')


def set_memory_format(network: nn.Module, memory_format: str) -> None:
    """Makes a network compute in a memory format; results do not depend on it.

    The backbones of this package have this as an argument, and return maps in the format in which the image came. Any
    other network that converts its maps returns contiguous ones.

    Args:
        network: A backbone or a neck, called with a map ``[N, C, H, W]`` or with levels. Gets the attribute
            ``memory_format``.
        memory_format: 'auto': channels_last on the CPU, where it is faster; unchanged elsewhere. 'channels_last': on
            every device. 'preserve': unchanged. On the CPU a network with a strided 1x1 convolution of fewer than
            :data:`LEAST_CHANNELS` channels always preserves the format.

    Raises:
        InputError: For another ``memory_format``.

    Example:
        >>> network = nn.Sequential(nn.Conv2d(3, 8, 3))
        >>> set_memory_format(network, 'channels_last')
        >>> network(torch.randn(1, 3, 16, 16)).is_contiguous()
        True
    """
    if memory_format not in MEMORY_FORMATS:
        raise InputError(f'memory_format must be one of {MEMORY_FORMATS}, got {memory_format!r}')
    if not (hasattr(network, 'memory_format') or getattr(network, 'enters_and_leaves', False)):
        network.register_forward_pre_hook(_enter, with_kwargs=True)
        network.register_forward_hook(_leave)
    network.memory_format = memory_format
    network.is_narrow = any(
        module.kernel_size == (1, 1) and module.stride != (1, 1) and module.in_channels < LEAST_CHANNELS
        for module in network.modules()
        if isinstance(module, nn.Conv2d)
    )
    if memory_format != 'preserve':
        _guard(network)


def _guard(network: nn.Module) -> None:
    """Gives layers of others contiguous maps; a later call looks at layers that were replaced since."""
    layers = tuple(map(id, network.modules()))
    if network.__dict__.get('guarded_layers') == layers:
        return
    for module in _foreign_layers(network):
        if _contiguous not in module._forward_pre_hooks.values():
            module.register_forward_pre_hook(_contiguous, with_kwargs=True)
    center_group_norms(network)
    network.guarded_layers = layers


def center_group_norms(model: nn.Module) -> None:
    """Makes group norms exact on channels_last maps whose mean is far from 0.

    torch's kernel for them (2.11, CPU) takes the variance as the difference of two large numbers. The maps come to it
    less the mean of their group, which changes no result.
    """
    for module in model.modules():
        if isinstance(module, nn.GroupNorm) and _centered not in module._forward_pre_hooks.values():
            module.register_forward_pre_hook(_centered)


def _centered(norm: nn.GroupNorm, args: tuple) -> tuple | None:
    (x,) = args
    if x.ndim != 4 or x.device.type != 'cpu' or format_of(x) is not torch.channels_last:
        return None
    means = x.detach().mean((2, 3)).unflatten(1, (norm.num_groups, -1)).mean(2)
    return (x - means.repeat_interleave(norm.num_channels // norm.num_groups, 1)[:, :, None, None],)


def entering(x: Tensor, network: nn.Module) -> Tensor:
    """Returns a map in the format in which a network computes."""
    if not isinstance(x, Tensor):  # a proxy of torch.fx
        return x
    on_cpu = x.device.type == 'cpu'
    if network.memory_format == 'preserve' or x.ndim != 4 or (on_cpu and network.is_narrow):
        return x
    if not is_compiling() and in_functorch():  # vmap does not know the format of a map
        return x
    if network.memory_format == 'auto' and not (on_cpu and x.dtype in _FAST_ON_CPU):
        return x
    if not is_compiling():
        _guard(network)
    return x.contiguous(memory_format=torch.channels_last)


def leaving(x: Tensor, given: Tensor) -> Tensor:
    """Returns a map contiguous, unless ``given``, the map that came in, is channels_last."""
    if not isinstance(x, Tensor) or (not is_compiling() and in_functorch()):
        return x
    if x.is_contiguous() or format_of(given) is torch.channels_last:
        return x
    if in_transform_or_mode() or type(x) is not Tensor or x.device.type != 'cpu' or is_jit_or_onnx_tracing():
        return x.contiguous()
    return _Contiguous.apply(x)


def computes_in_channels_last(model: nn.Module) -> set[nn.Module]:
    """Returns the modules of a model that are inside such a network, but for what is inside layers of others."""
    networks = [module for module in model.modules() if getattr(module, 'memory_format', 'preserve') != 'preserve']
    inside = {module for network in networks for module in network.modules()}
    return inside - {part for network in networks for layer in _foreign_layers(network) for part in layer.modules()}


def _foreign_layers(network: nn.Module) -> Iterator[nn.Module]:
    """Yields the layers that may read memory regardless of its format.

    In a network of this package these are all modules of others, but for blocks that derive from its own; elsewhere,
    where blocks are of others, too, those with parameters or without parts.
    """
    is_own = getattr(network, 'enters_and_leaves', False)
    for module in network.modules():
        is_layer = module._parameters or module._buffers or not module._modules
        if is_own and not is_layer:
            is_layer = not any(kind.__module__.startswith('icconv_mm.') for kind in type(module).__mro__)
        if is_layer and module is not network and not type(module).__module__.startswith(_READ_STRIDES):
            yield module


def _each(value: Any, change: Any) -> Any:
    """Returns a value with its map, or the maps of a list or tuple, changed."""
    if isinstance(value, Tensor):
        return change(value)
    return type(value)(_each(item, change) for item in value) if type(value) in (list, tuple) else value


def _contiguous(module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
    return _each(args, Tensor.contiguous), {name: _each(value, Tensor.contiguous) for name, value in kwargs.items()}


def _enter(network: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
    def change(maps: Any) -> Any:
        return _each(tuple(maps) if isinstance(maps, Sequence) else maps, lambda x: entering(x, network))

    if args:
        return (change(args[0]), *args[1:]), kwargs
    return args, {name: change(value) for name, value in kwargs.items()}


def _leave(network: nn.Module, args: tuple, output: Any) -> Any:
    return output if network.memory_format == 'preserve' else _each(output, Tensor.contiguous)


class _Contiguous(torch.autograd.Function):
    """A contiguous copy of a channels_last map, several times as fast as torch's own, and its gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        return _transposed(x.permute(0, 2, 3, 1).reshape(n, h * w, c)).view(n, c, h, w)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        n, c, h, w = grad.shape
        if grad.requires_grad or not grad.is_contiguous():
            return grad.contiguous(memory_format=torch.channels_last)
        return _transposed(grad.view(n, c, h * w)).view(n, h, w, c).permute(0, 3, 1, 2)


def _transposed(x: Tensor) -> Tensor:
    """``[N, A, B]`` -> ``[N, B, A]``, contiguous: torch has a fast copy of one large transposed matrix, not of many."""
    if x.shape[1] * x.shape[2] < _LEAST_OF_FAST_COPY:
        return x.transpose(1, 2).contiguous()
    out = x.new_empty(x.shape[0], x.shape[2], x.shape[1])
    for one, other in zip(out, x):
        one.copy_(other.t())
    return out
