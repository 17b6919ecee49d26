"""The inception convolution and its two gradients in plain PyTorch: the oracle of every backend."""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from icconv_mm.ops.common.tensors import triples, wide_zeros
from icconv_mm.ops.reference import dense_convolution


class Part(NamedTuple):
    """One ordinary convolution of an inception convolution."""

    dilation: tuple[int, int]
    groups: int
    inputs: tuple[int, ...]  # input channels it reads
    outputs: tuple[int, ...]  # output channels it computes


@lru_cache(maxsize=1024)
def make_parts(pattern: tuple[int, ...], in_channels: int, groups: int) -> tuple[Part, ...]:
    """Cuts a flat table of runs into ordinary convolutions: one per dilation and per number of channels in a group.

    A call costs at most as many convolutions as it has different dilations; a group that a run cuts in two adds one.
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
        Part(
            dilation=dilation,
            groups=len(found),
            inputs=tuple(i for group, _ in found for i in range(group * group_in, (group + 1) * group_in)),
            outputs=tuple(i for _, members in found for i in members),
        )
        for (dilation, _), found in by_kind.items()
    )


def forward(
    x: Tensor, weight: Tensor, bias: Tensor | None, pattern: Sequence[int], stride: int = 1, groups: int = 1
) -> Tensor:
    """``[N, C_in, H, W]``, ``[C_out, C_in / groups, 3, 3]``, ``[C_out]`` -> ``[N, C_out, H', W']``."""
    parts = make_parts(tuple(pattern), int(x.shape[1]), groups)
    outputs = [
        dense_convolution.forward(
            take(x, 1, part.inputs),
            take(weight, 0, part.outputs),
            None if bias is None else take(bias, 0, part.outputs),
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
    """The gradient for an input of ``size`` (H, W): ``[N, C_out, H', W']`` and the weight -> ``[N, C_in, H, W]``."""
    in_channels = weight.shape[1] * groups
    total = wide_zeros((grad.shape[0], in_channels, *size), like=grad)
    for part in make_parts(tuple(pattern), in_channels, groups):
        shape, filters = (grad.shape[0], len(part.inputs), *size), take(weight, 0, part.outputs)
        part_grad = take(grad, 1, part.outputs)
        share = dense_convolution.grad_input(part_grad, shape, filters, stride, part.dilation, part.groups)
        if len(part.inputs) == in_channels:
            total += share
        else:
            total.index_add_(1, _index(part.inputs, grad), share.to(total.dtype))
    return total.to(grad.dtype)


def grad_weight(grad: Tensor, x: Tensor, pattern: Sequence[int], stride: int, groups: int) -> Tensor:
    """The gradient for the weight: ``[N, C_out, H', W']``, ``[N, C_in, H, W]`` -> ``[C_out, C_in / groups, 3, 3]``."""
    parts = make_parts(tuple(pattern), int(x.shape[1]), groups)
    outputs = []
    for part in parts:
        part_grad, part_x = take(grad, 1, part.outputs), take(x, 1, part.inputs)
        shape = len(part.outputs), x.shape[1] // groups, 3, 3
        outputs.append(dense_convolution.grad_weight(part_grad, part_x, shape, stride, part.dilation, part.groups))
    return _in_order(outputs, 0, parts)


def take(tensor: Tensor, dim: int, channels: tuple[int, ...]) -> Tensor:
    """These entries of a dimension: the tensor itself or a view where they are consecutive, else a copy."""
    first, count = channels[0], len(channels)
    if channels == tuple(range(first, first + count)):
        return tensor if count == int(tensor.shape[dim]) else tensor.narrow(dim, first, count)
    return tensor.index_select(dim, _index(channels, tensor))


def _in_order(outputs: list[Tensor], dim: int, parts: tuple[Part, ...]) -> Tensor:
    joined = outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim)
    order = [channel for part in parts for channel in part.outputs]
    if order == sorted(order):
        return joined
    places = tuple(sorted(range(len(order)), key=order.__getitem__))
    return joined.index_select(dim, _index(places, joined))


def _index(channels: tuple[int, ...], like: Tensor) -> Tensor:
    return torch.tensor(channels, device=like.device)
