"""What the operators of this package ask of their tensors, and what they do with them, whatever the backend."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

FLOAT_DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
_AUTOCAST_BY_DEVICE = hasattr(torch, 'get_autocast_dtype')  # from torch 2.4 on, which is to be without the others


def check_tensors(tensors: Mapping[str, Tensor | None], out_channels: int) -> None:
    """Raise ValueError unless a bias has the output's channels, and all share a device and a dtype of convolutions.

    Args:
        tensors: Tensors by name, the input first. None is left out. Under autocast dtypes may differ.
        out_channels: Channels of the output.
    """
    given = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    if 'bias' in given and tuple(given['bias'].shape) != (out_channels,):
        raise ValueError(f'bias must have the shape [{out_channels}], got {list(given["bias"].shape)}')
    (first, x), *others = given.items()
    for name, tensor in given.items():
        if tensor.dtype not in FLOAT_DTYPES:
            raise ValueError(
                f'{name} {list(tensor.shape)} has the dtype {tensor.dtype}, expected one of {FLOAT_DTYPES}'
            )
    for name, tensor in others:
        if tensor.device != x.device:
            raise ValueError(
                f'{first} {list(x.shape)} is on {x.device}, {name} {list(tensor.shape)} on {tensor.device}: '
                'expected one device'
            )
        if tensor.dtype != x.dtype and not is_autocast(x.device.type):
            raise ValueError(
                f'{first} {list(x.shape)} has the dtype {x.dtype}, {name} {list(tensor.shape)} {tensor.dtype}: '
                'expected one dtype'
            )


def check_groups(x: Tensor, weight: Tensor, groups: int, name: str = '') -> None:
    """Raise ValueError unless ``[N, C_in, H, W]`` and ``[C_out, C_in / groups, kh, kw]`` fit; ``name`` comes first."""
    if groups < 1 or x.shape[1] != weight.shape[1] * groups or weight.shape[0] % groups:
        raise ValueError(
            f'{name}x {list(x.shape)} and weight {list(weight.shape)} do not fit {groups} groups: expected x with '
            f'{weight.shape[1] * groups} channels and weight with a multiple of {groups} filters'
        )


def is_autocast(device: str) -> bool:
    """Whether ``torch.autocast`` is on for a device type."""
    if device != 'cpu':
        return torch.is_autocast_enabled()
    return torch.is_autocast_enabled('cpu') if _AUTOCAST_BY_DEVICE else torch.is_autocast_cpu_enabled()


def device_refusal(tensors: Iterable[Tensor], device: str) -> str | None:
    """What a kernel of a device type says of a call whose tensors are elsewhere; None where all are on it."""
    found = next((tensor.device for tensor in tensors if tensor.device.type != device), None)
    if found is None:
        return None
    return f'it takes tensors on {"the CPU" if device == "cpu" else "a CUDA device"}, got {found}'


def mixture_refusal(tensors: Sequence[Tensor], what: str) -> str | None:
    """What a kernel says of tensors of several dtypes or devices; None where all are alike."""
    if any(x.dtype != tensors[0].dtype or x.device != tensors[0].device for x in tensors):
        return f'it takes {what} of one dtype and device, got {[f"{x.dtype} on {x.device}" for x in tensors]}'
    return None


def is_list_of_tensors(arg: object) -> bool:
    """Whether an argument of a call is a list of tensors; patterns are lists of numbers, and long."""
    return isinstance(arg, (list, tuple)) and bool(arg) and isinstance(arg[0], Tensor)


def tensors_of(args: Iterable[object]) -> list[Tensor]:
    """The tensors among the arguments of a call, and those in lists of tensors."""
    found = []
    for arg in args:
        if isinstance(arg, Tensor):
            found.append(arg)
        elif is_list_of_tensors(arg):
            found += arg
    return found


def cast(arg: object, device: str) -> object:
    """An argument of a call as ``torch.autocast`` of a device type has it: float64 and what is no float stay."""
    if is_list_of_tensors(arg):
        return [cast(each, device) for each in arg]
    if not isinstance(arg, Tensor) or arg.dtype == torch.float64 or not arg.is_floating_point():
        return arg
    if _AUTOCAST_BY_DEVICE:
        return arg.to(torch.get_autocast_dtype(device))
    return arg.to(torch.get_autocast_gpu_dtype() if device == 'cuda' else torch.get_autocast_cpu_dtype())


def triples(flat: Iterable[int]) -> Iterator[tuple[int, int, int]]:
    """What operators take flat: the runs of a pattern, or the channels and the kernel of each of the weights."""
    return zip(*[iter(flat)] * 3)


def memory_format(x: Tensor) -> torch.memory_format:
    """channels_last for an input that is channels_last and not contiguous as well; else contiguous."""
    if x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous():
        return torch.channels_last
    return torch.contiguous_format


def empty(shape: Sequence[int], like: Tensor) -> Tensor:
    """Uninitialised values of the dtype, device and memory format of ``like``."""
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=memory_format(like))


def wide_zeros(shape: Sequence[int], like: Tensor) -> Tensor:
    """Zeros to add many contributions to: in half precision that costs digits that a single convolution keeps."""
    dtype = torch.float32 if like.dtype in (torch.float16, torch.bfloat16) else like.dtype
    return torch.zeros(shape, dtype=dtype, device=like.device).to(memory_format=memory_format(like))
