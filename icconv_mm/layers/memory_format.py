"""Networks that compute in channels_last for images of any memory format."""

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_module_registration_hook

from icconv_mm.errors import InputError
from icconv_mm.ops.tensors import LEAST_CHANNELS
from icconv_mm.torch_private import in_functorch, is_compiling

# Python packages and modules whose layers get contiguous maps: operators that read memory regardless of its format
# (seen in mmcv 2.1.0: RoIAlign and modulated deformable convolution give wrong numbers without an error), and heads
# that call a `view` which channels_last maps do not have. Such a layer does not know the network before it. So from the
# first network that converts its input on, torch shows every registered module of the process, and these get a hook.
_CONTIGUOUS = (
    'mmcv.ops',
    'mmdet.models.dense_heads.centernet_head',
    'mmdet.models.dense_heads.corner_head',
    'mmseg.models.decode_heads.dm_head',
)

MEMORY_FORMATS = ('auto', 'channels_last', 'preserve')

# float64 has no channels_last kernels on CPUs
_FAST_ON_CPU = (torch.float32, torch.bfloat16, torch.float16)

_watch_modules = cache(register_module_module_registration_hook)  # once for a hook


def set_memory_format(network: nn.Module, memory_format: str) -> None:
    """Makes a network convert the maps of its input.

    On CPUs convolutions and norms of channels_last maps are faster, but OpenMMLab's images are NCHW. A network of this
    package converts its small input once; all later maps, also those of necks and heads, are then channels_last.
    Results do not depend on it.

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
        >>> network(torch.randn(1, 3, 16, 16)).is_contiguous(memory_format=torch.channels_last)
        True
    """
    if memory_format not in MEMORY_FORMATS:
        raise InputError(f'memory_format must be one of {MEMORY_FORMATS}, got {memory_format!r}')
    if not hasattr(network, 'memory_format'):
        network.register_forward_pre_hook(_convert, with_kwargs=True)
    network.memory_format = memory_format
    network.is_narrow = any(
        module.kernel_size == (1, 1) and module.stride != (1, 1) and module.in_channels < LEAST_CHANNELS
        for module in network.modules()
        if isinstance(module, nn.Conv2d)
    )
    if memory_format != 'preserve':
        give_contiguous_maps(network)
        _watch_modules(_guard)


def with_contiguous_maps(network: nn.Module) -> set[nn.Module]:
    """Yields the modules that need contiguous maps, and their parts: filters decide the format of a part's output."""
    return {part for module in network.modules() if _needs_contiguous_maps(module) for part in module.modules()}


def give_contiguous_maps(network: nn.Module) -> None:
    """Gives contiguous maps to the modules of a network that need them, such as all of ``mmcv.ops``."""
    for module in network.modules():
        _guard(network, '', module)


def _guard(parent: nn.Module, name: str, module: nn.Module | None) -> None:
    if _needs_contiguous_maps(module) and _contiguous not in module._forward_pre_hooks.values():
        module.register_forward_pre_hook(_contiguous, with_kwargs=True)


def _needs_contiguous_maps(module: nn.Module | None) -> bool:
    return any(kind.__module__.startswith(_CONTIGUOUS) for kind in type(module).__mro__)


def _contiguous(module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
    def made(value):
        if isinstance(value, Tensor):
            return value.contiguous()
        return type(value)(map(made, value)) if type(value) in (list, tuple) else value  # of levels

    return tuple(map(made, args)), {name: made(value) for name, value in kwargs.items()}


def _convert(network: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
    def made(maps):
        if isinstance(maps, Tensor):
            return converted(maps, network)
        return tuple(converted(x, network) for x in maps) if isinstance(maps, Sequence) else maps

    if args:
        return (made(args[0]), *args[1:]), kwargs
    return args, {name: made(value) for name, value in kwargs.items()}


def converted(x: Tensor, network: nn.Module) -> Tensor:
    """Returns a map in the memory format of a network's input."""
    on_cpu = x.device.type == 'cpu'
    if network.memory_format == 'preserve' or x.ndim != 4 or (on_cpu and network.is_narrow):
        return x
    if not is_compiling() and in_functorch():  # vmap does not know the format of a map
        return x
    if network.memory_format == 'auto' and not (on_cpu and x.dtype in _FAST_ON_CPU):
        return x
    return x.contiguous(memory_format=torch.channels_last)
