"""Pyramidal convolution: parallel convolutions of several kernel sizes and groups on one input."""

from collections.abc import Callable, Sequence
from math import prod

import torch
from torch import Tensor

from icconv_mm.ops import export_form
from icconv_mm.ops.convolution import Convolution, Part, cpu_refusal, unproven
from icconv_mm.ops.dispatch import Kernel
from icconv_mm.ops.library import is_symbol, recorded
from icconv_mm.ops.tensors import (
    check_groups,
    check_tensors,
    convolution_grad_input,
    convolution_grad_weight,
    convolve,
    device_refusal,
    empty,
    tensors_of,
    triples,
    wide_zeros,
)
from icconv_mm.patterns.pattern import MAX_DILATION


def pyconv2d(
    x: Tensor, weights: Sequence[Tensor], bias: Tensor | None, groups: Sequence[int], stride: int = 1, dilation: int = 1
) -> Tensor:
    """Pyramidal convolution, differentiable to any order.

    Level l has its own kernel size and number of groups. Larger kernels have more groups, so the total cost is about
    that of one convolution. All levels read the same input; their outputs are concatenated over the channels. The
    padding is ``dilation * (kernel // 2)``, so they have one size.

    Args:
        x: Input ``[N, C_in, H, W]``, contiguous or channels_last (the output then is, too).
        weights: The filters of each level, ``[C_l, C_in / groups_l, kh_l, kw_l]``; the sides of a kernel are odd.
        bias: ``[C_out]``, C_out being the sum of all C_l, or None.
        groups: Groups of each level, as in ``torch.nn.functional.conv2d``.
        stride: Stride of all levels on both axes; 1 by default.
        dilation: Dilation of all levels on both axes; 1 by default.

    Returns:
        ``[N, C_out, ceil(H / stride), ceil(W / stride)]``, the levels in order.

    Raises:
        ValueError: If shapes and groups do not fit, a kernel is even, or an argument is no list; the message
            names the argument or the level, and the numbers.

    Source: PyConv, https://arxiv.org/abs/2006.11538, section 3.

    Example:
        >>> x, weights = torch.randn(1, 8, 32, 32), [torch.randn(4, 8, 3, 3), torch.randn(4, 4, 5, 5)]
        >>> pyconv2d(x, weights, bias=None, groups=[1, 2], stride=2).shape
        torch.Size([1, 8, 16, 16])
    """
    weights, groups = _list_of_weights(weights), _groups_of_levels(groups)
    if is_symbol(x):
        return recorded(pyconv2d, x, weights, bias, groups, stride, dilation)
    return _convolution.call(x, weights, bias, (groups, stride, dilation), several=len(weights) > 1)


def pyconv2d_relu(
    x: Tensor, weights: Sequence[Tensor], bias: Tensor | None, groups: Sequence[int], stride: int = 1, dilation: int = 1
) -> Tensor:
    """``relu(pyconv2d(...))``: arguments, result and errors are those of ``pyconv2d``.

    As :func:`inception_conv2d_relu`.

    Raises:
        RuntimeError: Also, if an argument requires a gradient while gradients are recorded.

    Example:
        >>> x, weights = torch.randn(1, 8, 32, 32), [torch.randn(4, 8, 3, 3), torch.randn(4, 4, 5, 5)]
        >>> pyconv2d_relu(x, weights, bias=None, groups=[1, 2]).min() >= 0
        tensor(True)
    """
    weights, groups = _list_of_weights(weights), _groups_of_levels(groups)
    if is_symbol(x):
        return recorded(pyconv2d_relu, x, weights, bias, groups, stride, dilation)
    return _convolution.call(x, weights, bias, (groups, stride, dilation), several=len(weights) > 1, relu=True)


def _list_of_weights(weights: Sequence[Tensor]) -> list[Tensor]:
    if isinstance(weights, Tensor):
        raise ValueError(f'weights must be a list of tensors, one per level, got a tensor {list(weights.shape)}')
    return list(weights)


def _groups_of_levels(groups: Sequence[int]) -> tuple[int, ...]:
    if isinstance(groups, int):
        raise ValueError(f'groups must be a list of numbers, one per level, got {groups}')
    return tuple(groups)


def _check_pyconv(
    x: Tensor, weights: Sequence[Tensor], bias: Tensor | None, groups: Sequence[int], stride: int, dilation: int
) -> None:
    if x.dim() != 4:
        raise ValueError(f'x must have the shape [N, C_in, H, W], got {list(x.shape)}')
    if not weights or len(weights) != len(groups):
        raise ValueError(f'weights and groups must have one entry per level, got {len(weights)} and {len(groups)}')
    if not 1 <= min(stride, dilation) <= max(stride, dilation) <= MAX_DILATION:
        raise ValueError(f'stride and dilation must be in 1..{MAX_DILATION}, got stride={stride}, dilation={dilation}')
    if x.shape[1] < 1:
        raise ValueError(f'x must have at least one channel, got {list(x.shape)}')
    for level, (weight, group) in enumerate(zip(weights, groups)):
        name, shape = f'level {level}: ', list(weight.shape)
        if weight.dim() != 4:
            raise ValueError(f'{name}weight must have the shape [C, C_in / groups, kh, kw], got {shape}')
        if any(side % 2 == 0 for side in shape[2:]):
            raise ValueError(f'{name}the sides of the kernel must be odd, got {tuple(shape[2:])}')
        check_groups(x, weight, group, name)
    levels = {f'the weight of level {level}': weight for level, weight in enumerate(weights)}
    check_tensors({'x': x, **levels, 'bias': bias}, sum(weight.shape[0] for weight in weights))


# --- the reference: ordinary convolutions, the oracle of every backend


def forward(
    x: Tensor, weights: Sequence[Tensor], bias: Tensor | None, groups: Sequence[int], stride: int = 1, dilation: int = 1
) -> Tensor:
    """``[N, C_in, H, W]``, ``[C_l, C_in / groups_l, kh, kw]`` per level, ``[C_out]`` -> ``[N, C_out, H', W']``."""
    biases = [None] * len(weights) if bias is None else bias.split([int(weight.shape[0]) for weight in weights])
    levels = [
        convolve(x, weight, level_bias, stride, (dilation, dilation), group)
        for weight, level_bias, group in zip(weights, biases, groups)
    ]
    return levels[0] if len(levels) == 1 else torch.cat(levels, 1)


def grad_input(
    grad: Tensor, weights: Sequence[Tensor], size: tuple[int, int], groups: Sequence[int], stride: int, dilation: int
) -> Tensor:
    """Gradient for an input of ``size`` (H, W): ``[N, C_out, H', W']`` and the weights -> ``[N, C_in, H, W]``."""
    shape = (grad.shape[0], weights[0].shape[1] * groups[0], *size)
    total = wide_zeros(shape, like=grad)
    parts = grad.split([int(weight.shape[0]) for weight in weights], 1)
    for part, weight, group in zip(parts, weights, groups):
        total += convolution_grad_input(part, shape, weight, stride, (dilation, dilation), group)
    return total.to(grad.dtype)


def grad_weight(
    grad: Tensor, x: Tensor, shapes: Sequence[int], groups: Sequence[int], stride: int, dilation: int
) -> list[Tensor]:
    """Gradients for the weights; ``shapes`` has three numbers per level: its channels and its kernel."""
    sizes = level_shapes(shapes, x.shape[1], groups)
    return [
        convolution_grad_weight(part, x, size, stride, (dilation, dilation), group)
        for part, size, group in zip(grad.split([int(size[0]) for size in sizes], 1), sizes, groups)
    ]


def level_shapes(shapes: Sequence[int], in_channels: int, groups: Sequence[int]) -> list[tuple[int, int, int, int]]:
    """Shapes of the weights: ``[(C_l, C_in / groups_l, kh, kw), ...]`` from the flat ``[C_l, kh, kw, ...]``."""
    return [
        (channels, in_channels // group, height, width)
        for (channels, height, width), group in zip(triples(shapes), groups)
    ]


# --- on GPUs: one dense convolution, with zeros in the filters for smaller kernels and groups

_FILLED_DTYPES = (torch.bfloat16, torch.float16)  # tensor cores multiply the zeros faster than cuDNN skips them
_MOST_FILLED = 6400  # largest number of factors of an output, zeros included, that was measured (docs/measurements)


def _filled_objection(like: Tensor, in_channels: int, kernels: Sequence[Sequence[int]]) -> str | None:
    """Returns why the reference runs a call by default; None if the CUDA backend does. Channels are of all groups."""
    if reason := unproven(like.device):
        return reason
    if like.dtype not in _FILLED_DTYPES:
        return f'in {like.dtype} it was not measured'
    factors = in_channels * prod(map(max, zip(*kernels)))
    if factors > _MOST_FILLED:
        return f'an output has {factors} factors; above {_MOST_FILLED} it was not measured'
    return None


def _output_objection(x, weights, *_) -> str | None:
    return _filled_objection(x, x.shape[1], [weight.shape[2:] for weight in weights])


def _grad_input_objection(grad, weights, size, groups, *_) -> str | None:
    return _filled_objection(grad, weights[0].shape[1] * groups[0], [weight.shape[2:] for weight in weights])


def _grad_weight_objection(grad, x, shapes, *_) -> str | None:
    return _filled_objection(grad, x.shape[1], [kernel for _, *kernel in triples(shapes)])


def filled_output(
    x: Tensor, weights: Sequence[Tensor], bias: Tensor | None, groups: Sequence[int], stride: int, dilation: int
) -> Tensor:
    """Computes :func:`forward`; a value of ``x`` that is not finite spreads to all output channels."""
    return convolve(x, _filled(weights, groups), bias, stride, (dilation, dilation), 1)


def filled_grad_input(
    grad: Tensor, weights: Sequence[Tensor], size: tuple[int, int], groups: Sequence[int], stride: int, dilation: int
) -> Tensor:
    """Computes :func:`grad_input`."""
    shape = (grad.shape[0], weights[0].shape[1] * groups[0], *size)
    return convolution_grad_input(grad, shape, _filled(weights, groups), stride, (dilation, dilation), 1)


def filled_grad_weight(
    grad: Tensor, x: Tensor, shapes: Sequence[int], groups: Sequence[int], stride: int, dilation: int
) -> list[Tensor]:
    """Computes :func:`grad_weight`."""
    sizes = level_shapes(shapes, x.shape[1], groups)
    shape = _filled_shape(sizes, x.shape[1])
    filled = convolution_grad_weight(grad, x, shape, stride, (dilation, dilation), 1)
    return [_own(part, size, group).reshape(size) for part, size, group in _level_parts(filled, sizes, groups)]


def _filled(weights: Sequence[Tensor], groups: Sequence[int]) -> Tensor:
    """Returns all levels as the filters of one dense convolution, ``[C_out, C_in, kh, kw]`` of the largest kernel."""
    sizes = [tuple(weight.shape) for weight in weights]
    filled = weights[0].new_zeros(_filled_shape(sizes, sizes[0][1] * groups[0]))
    for (part, size, group), weight in zip(_level_parts(filled, sizes, groups), weights):
        _own(part, size, group).copy_(weight.unflatten(0, (group, size[0] // group)))
    return filled


def _filled_shape(sizes: Sequence[tuple[int, ...]], in_channels: int) -> tuple[int, ...]:
    channels, _, heights, widths = zip(*sizes)
    return sum(channels), in_channels, max(heights), max(widths)


def _level_parts(filled, sizes, groups):
    return zip(filled.split([size[0] for size in sizes]), sizes, groups)


def _own(part: Tensor, size: tuple[int, ...], groups: int) -> Tensor:
    """Returns a level's elements in its rows ``[C_l, C_in, kh, kw]`` of the filled filters: a view, groups first."""
    (channels, inside, *kernel), sides = size, part.shape[2:]
    top, left = ((side - length) // 2 for side, length in zip(sides, kernel))
    middle = part[:, :, top : top + kernel[0], left : left + kernel[1]]
    blocks = middle.unflatten(0, (groups, channels // groups)).unflatten(2, (groups, inside))
    return blocks.diagonal(0, 0, 2).movedim(-1, 0)


# --- fakes and registration


def _grad_input_fake(grad, weights, size, groups, stride, dilation):
    return empty((grad.shape[0], weights[0].shape[1] * groups[0], *size), like=grad)


def _grad_weight_fake(grad, x, shapes, groups, stride, dilation):
    return [grad.new_empty(shape) for shape in level_shapes(shapes, x.shape[1], groups)]


def _kernels(objection: Callable, filled: Callable) -> dict[str, Kernel]:
    on_cuda = Kernel(lambda *args: device_refusal(tensors_of(args), 'cuda'), objection, run=filled)
    return {'cpu': Kernel(cpu_refusal), 'cuda': on_cuda}


_convolution = Convolution(
    pyconv2d,
    Part(forward, _kernels(_output_objection, filled_output)),
    Part(grad_input, _kernels(_grad_input_objection, filled_grad_input), _grad_input_fake),
    Part(grad_weight, _kernels(_grad_weight_objection, filled_grad_weight), _grad_weight_fake),
    weights_schema='Tensor[] weights',
    settings_schema='int[] groups, int stride, int dilation',
    check=_check_pyconv,
    standard=export_form.pyramidal_output,
    dense=lambda groups, stride, dilation: (stride, (dilation, dilation), groups[0]),
    maker='pyramidal',
    converters={'weights': _list_of_weights, 'groups': _groups_of_levels},
)
