"""Networks that compute in channels_last, whatever format their pictures come in.

On CPUs convolutions and norms of channels_last maps are faster, but OpenMMLab's pictures are NCHW. A network of this
package converts its input, which is small, once; the maps that follow, and so what necks and heads make of them, are
channels_last. Results do not depend on it, but for operators that read memory without asking for its format: those of
mmcv (seen in 2.1.0: RoIAlign and modulated deformable convolution give other numbers without a word), and but for heads
that ask for a ``view`` which such maps do not have (of the libraries' families, mmseg's DMNet). Modules of ``mmcv.ops``
and of these heads therefore get contiguous maps.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_module_registration_hook

MEMORY_FORMATS = ('auto', 'channels_last', 'preserve')

_CONTIGUOUS = ('mmcv.ops', 'mmseg.models.decode_heads.dm_head')  # modules of Python whose layers need them

# float64 has no channels_last kernels on CPUs
_FAST_ON_CPU = (torch.float32, torch.bfloat16, torch.float16)


def set_memory_format(network: nn.Module, memory_format: str) -> None:
    """Has a network convert the maps that it is called with.

    Unless they are preserved, modules of ``mmcv.ops``, those that the network has and all that are made from then on,
    get contiguous maps.

    Args:
        network: A backbone or a neck: takes a map ``[N, C, H, W]``, or levels of them. Gets the attribute
            ``memory_format``.
        memory_format: 'auto': to channels_last on the CPU, where it is faster; as they come elsewhere.
            'channels_last': on every device. 'preserve': as they come.

    Raises:
        ValueError: For another ``memory_format``.

    Example:
        >>> network = nn.Sequential(nn.Conv2d(3, 8, 3))
        >>> set_memory_format(network, 'channels_last')
        >>> network(torch.randn(1, 3, 16, 16)).is_contiguous(memory_format=torch.channels_last)
        True
    """
    if memory_format not in MEMORY_FORMATS:
        raise ValueError(f'memory_format must be one of {MEMORY_FORMATS}, got {memory_format!r}')
    if not hasattr(network, 'memory_format'):
        network.register_forward_pre_hook(_convert)
    network.memory_format = memory_format
    if memory_format != 'preserve':
        give_mmcv_contiguous_maps(network)
        if not _guards:
            _guards.append(register_module_module_registration_hook(lambda parent, name, child: _guard(child)))


def give_mmcv_contiguous_maps(network: nn.Module) -> None:
    """Has the modules of ``mmcv.ops`` in a network read contiguous maps."""
    for module in network.modules():
        _guard(module)


_guards: list = []


def _guard(module: nn.Module | None) -> None:
    needs = any(kind.__module__.startswith(_CONTIGUOUS) for kind in type(module).__mro__)
    if needs and _contiguous not in module._forward_pre_hooks.values():
        module.register_forward_pre_hook(_contiguous, with_kwargs=True)


def _contiguous(module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
    return tuple(map(_as_contiguous, args)), {name: _as_contiguous(value) for name, value in kwargs.items()}


def _as_contiguous(value: object) -> object:
    return value.contiguous() if isinstance(value, Tensor) else value


def _convert(network: nn.Module, args: tuple) -> tuple:
    maps, *rest = args
    if isinstance(maps, Tensor):
        return (_converted(maps, network.memory_format), *rest)
    if isinstance(maps, Sequence):
        return (tuple(_converted(x, network.memory_format) for x in maps), *rest)
    return args


def _converted(x: Tensor, memory_format: str) -> Tensor:
    if memory_format == 'preserve' or x.ndim != 4:
        return x
    if memory_format == 'auto' and not (x.device.type == 'cpu' and x.dtype in _FAST_ON_CPU):
        return x
    return x.contiguous(memory_format=torch.channels_last)
