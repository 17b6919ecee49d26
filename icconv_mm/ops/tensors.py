"""Shared by operators: checks and casts of tensors, torch's convolution without its errors, workspace memory."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor

FLOAT_DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
# torch 2.11 on CPUs writes beyond its memory in the backward pass of strided 1x1 convolutions of fewer channels_last
# channels (1, 8 and 12 of them crash, 16 and more do not).
LEAST_CHANNELS = 16
# Bytes of workspace memory of one call: on a CPU the size of its caches, on a GPU enough to fill it.
WORKSPACE = {'cpu': 16 << 20, 'cuda': 512 << 20}
_AUTOCAST_BY_DEVICE = hasattr(torch, 'get_autocast_dtype')  # from torch 2.4 on, which deprecates the others


def check_tensors(tensors: Mapping[str, Tensor | None], out_channels: int) -> None:
    """Raises ValueError unless a bias has the output's channels, and all share a device and a dtype of convolutions.

    ``tensors`` has the input first; None is skipped. Under autocast dtypes may differ.
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
    """Raises ValueError unless ``[N, C_in, H, W]`` and ``[C_out, C_in / groups, kh, kw]`` fit; ``name`` comes first."""
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
    """Returns the message of a kernel about tensors on another device type; None if all are on it."""
    expected = 'the CPU' if device == 'cpu' else 'a CUDA device'
    devices = (tensor.device for tensor in tensors if tensor.device.type != device)
    return next((f'it needs tensors on {expected}, got {device_name}' for device_name in devices), None)


def mixture_refusal(tensors: Sequence[Tensor], what: str) -> str | None:
    """Returns the message of a kernel about tensors of several dtypes or devices; None if all are alike."""
    if any(x.dtype != tensors[0].dtype or x.device != tensors[0].device for x in tensors):
        return f'it needs {what} of one dtype and device, got {[f"{x.dtype} on {x.device}" for x in tensors]}'
    return None


def is_list_of_tensors(arg: object) -> bool:
    """Whether an argument of a call is a list of tensors; patterns are lists of numbers, and long."""
    return isinstance(arg, (list, tuple)) and bool(arg) and isinstance(arg[0], Tensor)


def tensors_of(args: Iterable[object]) -> list[Tensor]:
    """Returns the tensors among the arguments of a call, and those in lists of tensors."""
    flat = (value for arg in args for value in (arg if is_list_of_tensors(arg) else (arg,)))
    return [value for value in flat if isinstance(value, Tensor)]


def cast(arg: object, device: str) -> object:
    """Returns an argument of a call as cast by ``torch.autocast``: float64 and non-floating values stay."""
    if is_list_of_tensors(arg):
        return [cast(value, device) for value in arg]
    if not isinstance(arg, Tensor) or arg.dtype == torch.float64 or not arg.is_floating_point():
        return arg
    return arg.to(_autocast_dtype(device))


def _autocast_dtype(device: str) -> torch.dtype:
    if _AUTOCAST_BY_DEVICE:
        return torch.get_autocast_dtype(device)
    return torch.get_autocast_gpu_dtype() if device == 'cuda' else torch.get_autocast_cpu_dtype()


def triples(flat: Iterable[int]) -> Iterator[tuple[int, int, int]]:
    """Returns a flat list of the runs of a pattern, or of the channels and the kernel of each of the weights."""
    return zip(*[iter(flat)] * 3)


def memory_format(x: Tensor) -> torch.memory_format:
    """Returns channels_last for an input that is channels_last and not also contiguous; else contiguous."""
    if x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous():
        return torch.channels_last
    return torch.contiguous_format


def empty(shape: Sequence[int], like: Tensor) -> Tensor:
    """Returns an uninitialised tensor with the dtype, device and memory format of ``like``."""
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=memory_format(like))


def wide_zeros(shape: Sequence[int], like: Tensor) -> Tensor:
    """Returns zeros for a sum of many terms, in float32 for half precision, whose digits a single convolution keeps."""
    dtype = torch.float32 if like.dtype in (torch.float16, torch.bfloat16) else like.dtype
    return torch.zeros(shape, dtype=dtype, device=like.device).to(memory_format=memory_format(like))


# --- torch's own convolution


def convolve(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, dilation: Sequence[int], groups: int
) -> Tensor:
    """``F.conv2d`` that keeps the size apart from its stride, in float32 where bfloat16 is wrong.

    ``[N, C_in, H, W]``, ``[C_out, C_in / groups, kh, kw]``, ``[C_out]`` -> ``[N, C_out, H', W']``; kernels are odd.
    """
    settings = stride, _padding(weight, dilation), dilation, groups
    if _is_narrow(x, weight, stride):
        x = _plain(x)
    if not _is_trusted(x, stride):
        lowered = is_autocast('cpu') and x.dtype != torch.float64
        dtype = _autocast_dtype('cpu') if lowered else x.dtype
        if dtype == torch.bfloat16:
            given = (None if tensor is None else tensor.to(dtype).float() for tensor in (x, weight, bias))
            with torch.autocast('cpu', enabled=False):
                return F.conv2d(*given, *settings).to(dtype)
    return F.conv2d(x, weight, bias, *settings)


def _is_trusted(x: Tensor, stride: int) -> bool:
    """Whether torch's convolution of this input, ``[N, C, H, W]``, is correct in bfloat16.

    torch 2.11 on CPUs: with a stride and one column of outputs, the output may be wrong, and the gradient of the weight
    is uninitialised memory for taps without a pixel.
    """
    return stride == 1 or x.device.type != 'cpu' or x.shape[-1] > stride


def _is_narrow(x: Tensor, weight: Tensor, stride: int) -> bool:
    """Whether the backward pass of torch's convolution needs contiguous maps (:data:`LEAST_CHANNELS`)."""
    is_one_tap = weight.shape[2] == weight.shape[3] == 1
    return stride > 1 and is_one_tap and x.device.type == 'cpu' and x.shape[1] < LEAST_CHANNELS


def _plain(x: Tensor) -> Tensor:
    """Returns a contiguous copy; a map of one channel is contiguous even with the strides of channels_last."""
    return x.clone(memory_format=torch.contiguous_format)


def convolution_grad_input(
    grad: Tensor, shape: Sequence[int], weight: Tensor, stride: int, dilation: Sequence[int], groups: int
) -> Tensor:
    """Returns the gradient for an input of this shape: ``[N, C_out, H', W']`` and the weight -> ``[N, C_in, H, W]``."""
    return _backward(grad, grad.new_empty(1).expand(shape), weight, stride, dilation, groups, 0)


def convolution_grad_weight(
    grad: Tensor, x: Tensor, shape: Sequence[int], stride: int, dilation: Sequence[int], groups: int
) -> Tensor:
    """Returns the gradient for a weight of this shape: ``[N, C_out, H', W']`` and the input -> that of the weight."""
    return _backward(grad, x, grad.new_empty(1).expand(shape), stride, dilation, groups, 1)


def _backward(grad, x, weight, stride, dilation, groups, index):
    dtype = grad.dtype
    if _is_narrow(x, weight, stride):
        grad, x, weight = map(_plain, (grad, x, weight))
    if dtype == torch.bfloat16 and not _is_trusted(x, stride):
        grad, x, weight = grad.float(), x.float(), weight.float()
    no_bias, transposed, output_padding = None, False, (0, 0)
    settings = (stride, stride), _padding(weight, dilation), dilation, transposed, output_padding, groups
    mask = [index == 0, index == 1, False]
    return torch.ops.aten.convolution_backward(grad, x, weight, no_bias, *settings, mask)[index].to(dtype)


def _padding(weight, dilation):
    return tuple(int(side) // 2 * step for side, step in zip(weight.shape[2:], dilation))  # int: traces have tensors


# --- workspace memory


def computed_dtype(dtype: torch.dtype) -> torch.dtype:
    """Returns the dtype of the arithmetic: half precision has neither the range nor the digits for logits."""
    return dtype if dtype == torch.float64 else torch.float32


@contextmanager
def widened(*tensors: Tensor | None) -> Iterator[list[Tensor | None]]:
    """Yields the tensors in the dtype of the arithmetic, with autocast off."""
    dtype = torch.float64 if any(t is not None and t.dtype == torch.float64 for t in tensors) else torch.float32
    with torch.autocast(tensors[0].device.type, enabled=False), torch.no_grad():
        yield [None if tensor is None else tensor.to(dtype) for tensor in tensors]


def rows_of_a_block(columns: int, buffers: int, like: Tensor) -> int:
    """Returns the number of rows of ``buffers`` matrices with so many columns that fit the workspace; 16 at least."""
    size = WORKSPACE.get(like.device.type, WORKSPACE['cuda'])
    return max(16, size // (buffers * columns * like.element_size()) // 16 * 16)


def in_blocks(rows: int, columns: int, buffers: int, like: Tensor) -> Iterator[tuple[slice, list[Tensor]]]:
    """Yields blocks of ``rows``, each with a workspace of ``buffers`` matrices [rows of the block, columns]."""
    block = min(rows, rows_of_a_block(columns, buffers, like))
    workspace = like.new_empty((buffers, block, columns))
    for start in range(0, rows, block):
        stop = min(start + block, rows)
        yield slice(start, stop), list(workspace[:, : stop - start])
