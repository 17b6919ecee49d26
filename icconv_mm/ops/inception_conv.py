"""Inception convolution: a 3x3 convolution in which every output channel has its own dilation."""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from icconv_mm.ops import export_form
from icconv_mm.ops.convolution import Convolution, Part, cpu_refusal, unproven
from icconv_mm.ops.dispatch import Kernel
from icconv_mm.ops.library import is_symbol, recorded
from icconv_mm.ops.tensors import (
    FLOAT_DTYPES,
    check_groups,
    check_tensors,
    convolution_grad_input,
    convolution_grad_weight,
    convolve,
    device_refusal,
    empty,
    triples,
    wide_zeros,
)
from icconv_mm.patterns import DilationPattern
from icconv_mm.patterns.pattern import MAX_DILATION


def inception_conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    pattern: DilationPattern | Iterable[tuple[int, int, int]],
    stride: int = 1,
    groups: int = 1,
) -> Tensor:
    """Inception convolution, differentiable to any order.

    Output channel i is the convolution of the input with its 3x3 filter at dilation (d_h, d_w)(i). The padding equals
    the dilation, so the output has the size, and the computation the cost, of the dense convolution.

    Args:
        x: Input ``[N, C_in, H, W]``, contiguous or channels_last (the output then is, too).
        weight: Filters ``[C_out, C_in / groups, 3, 3]``, those of the dense convolution.
        bias: ``[C_out]`` or None.
        pattern: A table of runs ``(out_channels, dilation_h, dilation_w)`` in the order of the output channels, which
            sums to ``C_out``.
        stride: Stride of both axes; 1 by default.
        groups: Groups of channels, as in ``torch.nn.functional.conv2d``; 1 by default. A run may end inside a group.

    Returns:
        ``[N, C_out, ceil(H / stride), ceil(W / stride)]``.

    Raises:
        ValueError: If shapes, groups and pattern do not fit; the message has the values got and expected.

    Source: IC-Conv, https://arxiv.org/abs/2012.13587, section 3.1.

    Example:
        >>> x, weight = torch.randn(1, 8, 32, 32), torch.randn(6, 8, 3, 3)
        >>> inception_conv2d(x, weight, bias=None, pattern=[(4, 1, 1), (2, 2, 4)], stride=2).shape
        torch.Size([1, 6, 16, 16])
    """
    pattern = DilationPattern.of(pattern)
    if is_symbol(x):
        return recorded(inception_conv2d, x, weight, bias, pattern, stride, groups)
    return _convolution.call(x, (weight,), bias, (pattern.flat, stride, groups), several=not pattern.is_uniform)


def inception_conv2d_relu(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    pattern: DilationPattern | Iterable[tuple[int, int, int]],
    stride: int = 1,
    groups: int = 1,
) -> Tensor:
    """``relu(inception_conv2d(...))``: arguments, result and errors are those of ``inception_conv2d``.

    A compiled kernel applies ReLU while it stores, which saves a pass over the output. There is no gradient.

    Raises:
        RuntimeError: Also, if an argument requires a gradient while gradients are recorded.

    Example:
        >>> x, weight = torch.randn(1, 8, 32, 32), torch.randn(6, 8, 3, 3)
        >>> inception_conv2d_relu(x, weight, bias=None, pattern=[(4, 1, 1), (2, 2, 4)]).min() >= 0
        tensor(True)
    """
    pattern = DilationPattern.of(pattern)
    if is_symbol(x):
        return recorded(inception_conv2d_relu, x, weight, bias, pattern, stride, groups)
    settings = pattern.flat, stride, groups
    return _convolution.call(x, (weight,), bias, settings, several=not pattern.is_uniform, relu=True)


def _check_inception(
    x: Tensor, weight: Tensor, bias: Tensor | None, pattern: Sequence[int], stride: int, groups: int
) -> None:
    """Raises ValueError unless these are arguments of an inception convolution, ``pattern`` flat."""
    if x.dim() != 4:
        raise ValueError(f'x must have the shape [N, C_in, H, W], got {list(x.shape)}')
    if weight.dim() != 4 or tuple(weight.shape[2:]) != (3, 3):
        raise ValueError(f'weight must have the shape [C_out, C_in / groups, 3, 3], got {list(weight.shape)}')
    if not 1 <= stride <= MAX_DILATION or groups < 1:
        raise ValueError(
            f'stride must be in 1..{MAX_DILATION} and groups at least 1, got stride={stride}, groups={groups}'
        )
    if x.shape[1] < 1:
        raise ValueError(f'x must have at least one channel, got {list(x.shape)}')
    check_groups(x, weight, groups)
    if sum(pattern[::3]) != weight.shape[0]:
        raise ValueError(
            f'the pattern sums to {sum(pattern[::3])} channels, weight has {weight.shape[0]} filters; tools that cut '
            'filters need the ordinary convolutions that icconv_mm.layers.to_standard makes of the layer'
        )
    check_tensors({'x': x, 'weight': weight, 'bias': bias}, weight.shape[0])


def _flat(pattern: Iterable) -> tuple[int, ...]:
    """Returns a flat pattern from a flat one or from a table of runs."""
    pattern = tuple(pattern)
    return pattern if all(isinstance(item, int) for item in pattern) else DilationPattern.of(pattern).flat


# --- rules of the compiled kernels (measured: docs/performance.md)

_LANES = 16  # lanes of a vector on the CPU: a group with fewer channels leaves some empty


def _small_groups(x, weight, bias, pattern, stride, groups) -> str | None:
    has_few = groups > 1 and weight.shape[1] < _LANES
    return f'{weight.shape[1]} channels in a group; below {_LANES} the reference is faster' if has_few else None


_LARGEST_CHOSEN_DILATION = 8  # largest dilation by default: a wider border leaves smaller tiles
_MANY_CHANNELS = 64  # mean channels per dilation: a float32 convolution for each dilation is then as fast
_VECTOR_BYTES = 16  # bytes of a pixel's channels that the tiled kernels copy at once


def _cuda_refusal(first, second, *_) -> str | None:
    if reason := device_refusal((first, second), 'cuda'):
        return reason
    if first.device != second.device:
        return f'it needs tensors on one device, got {first.device} and {second.device}'
    if first.dtype not in FLOAT_DTYPES or first.dtype != second.dtype:
        return f'it needs tensors of one floating-point type, got {first.dtype} and {second.dtype}'
    return None


def _cuda_objection(tensor, group_in: int, group_out: int, pattern) -> str | None:
    """Returns why the reference runs a call by default: the CUDA kernels are slower, or were not measured."""
    if reason := unproven(tensor.device):
        return reason
    if tensor.dtype == torch.float64:
        return f'in {tensor.dtype} the reference is faster'
    vector = _VECTOR_BYTES // tensor.element_size()
    if group_in % vector or group_out % vector:
        return f'{group_in} -> {group_out} channels of a group do not fill {_VECTOR_BYTES} bytes'
    dilation = max((max(h, w) for n, h, w in triples(pattern) if n), default=1)
    if dilation > _LARGEST_CHOSEN_DILATION:
        return f'its largest dilation is {dilation}; above {_LARGEST_CHOSEN_DILATION} it was not measured'
    return None


def _output_objection(x, weight, bias, pattern, stride, groups) -> str | None:
    if x.dtype == torch.float32:
        mean = weight.shape[0] / len({(h, w) for _, h, w in triples(pattern)})
        if mean >= _MANY_CHANNELS:
            return f'{mean:.0f} float32 channels share a dilation; from {_MANY_CHANNELS} the reference is as fast'
    return _cuda_objection(x, weight.shape[1], weight.shape[0] // groups, pattern)


def _grad_input_objection(grad, weight, size, pattern, stride, groups) -> str | None:
    return _cuda_objection(grad, weight.shape[1], weight.shape[0] // groups, pattern)


def _grad_weight_objection(grad, x, pattern, stride, groups) -> str | None:
    return _cuda_objection(grad, x.shape[1] // groups, grad.shape[1] // groups, pattern)


# --- the reference: ordinary convolutions, the oracle of every backend


class Convolved(NamedTuple):
    """One ordinary convolution of an inception convolution."""

    dilation: tuple[int, int]
    groups: int
    inputs: tuple[int, ...]  # input channels
    outputs: tuple[int, ...]  # output channels


@lru_cache(maxsize=1024)
def make_parts(pattern: tuple[int, ...], in_channels: int, groups: int) -> tuple[Convolved, ...]:
    """Cuts a flat table of runs into ordinary convolutions: one per dilation and per number of channels in a group.

    A call has at most as many convolutions as different dilations; a run that ends inside a group adds one.
    """
    dilations = [(h, w) for n, h, w in triples(pattern) for _ in range(n)]
    group_out, group_in = len(dilations) // groups, in_channels // groups
    by_kind: dict = {}
    for group in range(groups):
        channels = range(group * group_out, (group + 1) * group_out)
        for dilation in dict.fromkeys(dilations[i] for i in channels):
            members = [i for i in channels if dilations[i] == dilation]
            by_kind.setdefault((dilation, len(members)), []).append((group, members))
    return tuple(
        Convolved(
            dilation=dilation,
            groups=len(parts),
            inputs=tuple(i for group, _ in parts for i in range(group * group_in, (group + 1) * group_in)),
            outputs=tuple(i for _, members in parts for i in members),
        )
        for (dilation, _), parts in by_kind.items()
    )


def forward(
    x: Tensor, weight: Tensor, bias: Tensor | None, pattern: Sequence[int], stride: int = 1, groups: int = 1
) -> Tensor:
    """``[N, C_in, H, W]``, ``[C_out, C_in / groups, 3, 3]``, ``[C_out]`` -> ``[N, C_out, H', W']``."""
    parts = make_parts(tuple(pattern), int(x.shape[1]), groups)
    outputs = [
        convolve(
            take_channels(x, 1, part.inputs),
            take_channels(weight, 0, part.outputs),
            None if bias is None else take_channels(bias, 0, part.outputs),
            stride,
            part.dilation,
            part.groups,
        )
        for part in parts
    ]
    return _in_order(outputs, 1, parts)


def grad_input(
    grad: Tensor, weight: Tensor, size: tuple[int, int], pattern: Sequence[int], stride: int, groups: int
) -> Tensor:
    """Gradient for an input of ``size`` (H, W): ``[N, C_out, H', W']`` and the weight -> ``[N, C_in, H, W]``."""
    in_channels = weight.shape[1] * groups
    total = wide_zeros((grad.shape[0], in_channels, *size), like=grad)
    for part in make_parts(tuple(pattern), in_channels, groups):
        shape, filters = (grad.shape[0], len(part.inputs), *size), take_channels(weight, 0, part.outputs)
        part_grad = take_channels(grad, 1, part.outputs)
        share = convolution_grad_input(part_grad, shape, filters, stride, part.dilation, part.groups)
        if len(part.inputs) == in_channels:
            total += share
        else:
            total.index_add_(1, _index(part.inputs, grad), share.to(total.dtype))
    return total.to(grad.dtype)


def grad_weight(grad: Tensor, x: Tensor, pattern: Sequence[int], stride: int, groups: int) -> Tensor:
    """Gradient for the weight: ``[N, C_out, H', W']``, ``[N, C_in, H, W]`` -> ``[C_out, C_in / groups, 3, 3]``."""
    parts = make_parts(tuple(pattern), int(x.shape[1]), groups)
    outputs = []
    for part in parts:
        part_grad, part_x = take_channels(grad, 1, part.outputs), take_channels(x, 1, part.inputs)
        shape = len(part.outputs), x.shape[1] // groups, 3, 3
        outputs.append(convolution_grad_weight(part_grad, part_x, shape, stride, part.dilation, part.groups))
    return _in_order(outputs, 0, parts)


def take_channels(tensor: Tensor, dim: int, channels: tuple[int, ...]) -> Tensor:
    """Selects entries of a dimension: the tensor itself or a view if they are consecutive, else a copy."""
    first, count = channels[0], len(channels)
    if channels == tuple(range(first, first + count)):
        return tensor if count == int(tensor.shape[dim]) else tensor.narrow(dim, first, count)
    return tensor.index_select(dim, _index(channels, tensor))


def _in_order(outputs: list[Tensor], dim: int, parts: tuple[Convolved, ...]) -> Tensor:
    joined = outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim)
    order = [channel for part in parts for channel in part.outputs]
    if order == sorted(order):
        return joined
    inverse = tuple(sorted(range(len(order)), key=order.__getitem__))
    return joined.index_select(dim, _index(inverse, joined))


def _index(channels: tuple[int, ...], like: Tensor) -> Tensor:
    return torch.tensor(channels, device=like.device)


def _standard(
    x: Tensor, weight: Tensor, bias: Tensor | None, pattern: Sequence[int], stride: int, groups: int, *, relu=False
) -> Tensor:
    """Computes the convolution by the operators of exports; groups are mostly whole runs, which need no cut."""
    if groups == 1:
        return export_form.inception_output(x, weight, bias, pattern, stride, relu=relu)
    y = forward(x, weight, bias, pattern, stride, groups)
    return y.relu() if relu else y


def exported_convolutions(pattern: tuple[int, ...], in_channels: int, groups: int = 1) -> int:
    """Returns the number of standard convolutions in an exported file for a layer."""
    if groups == 1:
        return export_form.plan(pattern, in_channels).convolutions
    return len(make_parts(pattern, in_channels, groups))


# --- fakes and registration


_convolution = Convolution(
    inception_conv2d,
    Part(forward, {'cpu': Kernel(cpu_refusal, _small_groups), 'cuda': Kernel(_cuda_refusal, _output_objection)}),
    Part(
        grad_input,
        {'cpu': Kernel(cpu_refusal), 'cuda': Kernel(_cuda_refusal, _grad_input_objection)},
        lambda grad, weight, size, _, __, groups: empty((grad.shape[0], weight.shape[1] * groups, *size), like=grad),
    ),
    Part(
        grad_weight,
        {'cpu': Kernel(cpu_refusal), 'cuda': Kernel(_cuda_refusal, _grad_weight_objection)},
        lambda grad, x, pattern, stride, groups: grad.new_empty((grad.shape[1], x.shape[1] // groups, 3, 3)),
    ),
    weights_schema='Tensor weight',
    settings_schema='int[] pattern, int stride, int groups',
    check=_check_inception,
    standard=_standard,
    dense=lambda pattern, stride, groups: (stride, pattern[1:3], groups),
    maker='inception',
    converters={'pattern': _flat},
)
