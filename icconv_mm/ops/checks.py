"""What the convolutions of this package ask of their tensors, whatever the backend."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def check_tensors(tensors: Mapping[str, Tensor | None]) -> None:
    """Raise ValueError unless the tensors of a call share a device and a dtype that convolutions have.

    Args:
        tensors: By name; the first is the input. None is left out. Under autocast dtypes may differ.
    """
    given = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    (first, x), *others = given.items()
    for name, tensor in given.items():
        if tensor.dtype not in DTYPES:
            raise ValueError(f'{name} {list(tensor.shape)} has the dtype {tensor.dtype}, expected one of {DTYPES}')
    for name, tensor in others:
        if tensor.device != x.device:
            raise ValueError(
                f'{first} {list(x.shape)} is on {x.device}, {name} {list(tensor.shape)} on {tensor.device}: '
                'expected one device'
            )
        if tensor.dtype != x.dtype and not _autocast(x.device.type):
            raise ValueError(
                f'{first} {list(x.shape)} has the dtype {x.dtype}, {name} {list(tensor.shape)} {tensor.dtype}: '
                'expected one dtype'
            )


def tensors_of(args: Iterable[object]) -> list[Tensor]:
    """The tensors among the arguments of a call, and those in lists of tensors."""
    found = []
    for arg in args:
        if isinstance(arg, Tensor):
            found.append(arg)
        elif isinstance(arg, (list, tuple)) and arg and isinstance(arg[0], Tensor):
            found += arg  # patterns are lists of numbers, and long
    return found


def _autocast(device: str) -> bool:
    return torch.is_autocast_cpu_enabled() if device == 'cpu' else torch.is_autocast_enabled()
