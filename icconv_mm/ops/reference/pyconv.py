"""The pyramidal convolution and its two gradients in plain PyTorch: the oracle of every backend."""

from collections.abc import Sequence

import torch
from torch import Tensor

from icconv_mm.ops.common.tensors import triples, wide_zeros
from icconv_mm.ops.reference import dense_convolution


def forward(
    x: Tensor, weights: Sequence[Tensor], bias: Tensor | None, groups: Sequence[int], stride: int = 1, dilation: int = 1
) -> Tensor:
    """``[N, C_in, H, W]``, ``[C_l, C_in / groups_l, kh, kw]`` per level, ``[C_out]`` -> ``[N, C_out, H', W']``."""
    biases = [None] * len(weights) if bias is None else bias.split([int(weight.shape[0]) for weight in weights])
    levels = [
        dense_convolution.forward(x, weight, level_bias, stride, (dilation, dilation), group)
        for weight, level_bias, group in zip(weights, biases, groups)
    ]
    return levels[0] if len(levels) == 1 else torch.cat(levels, 1)


def grad_input(
    grad: Tensor, weights: Sequence[Tensor], size: tuple[int, int], groups: Sequence[int], stride: int, dilation: int
) -> Tensor:
    """The gradient for an input of ``size`` (H, W): ``[N, C_out, H', W']`` and the weights -> ``[N, C_in, H, W]``."""
    shape = (grad.shape[0], weights[0].shape[1] * groups[0], *size)
    total = wide_zeros(shape, like=grad)
    for part, weight, group in zip(_split(grad, [weight.shape[0] for weight in weights]), weights, groups):
        total += dense_convolution.grad_input(part, shape, weight, stride, (dilation, dilation), group)
    return total.to(grad.dtype)


def grad_weight(
    grad: Tensor, x: Tensor, shapes: Sequence[int], groups: Sequence[int], stride: int, dilation: int
) -> list[Tensor]:
    """The gradients for the weights; ``shapes`` has three numbers per level: its channels and its kernel."""
    sizes = level_shapes(shapes, x.shape[1], groups)
    return [
        dense_convolution.grad_weight(part, x, size, stride, (dilation, dilation), group)
        for part, size, group in zip(_split(grad, [size[0] for size in sizes]), sizes, groups)
    ]


def level_shapes(shapes: Sequence[int], in_channels: int, groups: Sequence[int]) -> list[tuple[int, int, int, int]]:
    """The shapes of the weights: ``[(C_l, C_in / groups_l, kh, kw), ...]`` from the flat ``[C_l, kh, kw, ...]``."""
    return [
        (channels, in_channels // group, height, width)
        for (channels, height, width), group in zip(triples(shapes), groups)
    ]


def _split(grad: Tensor, channels: Sequence[int]) -> Sequence[Tensor]:
    return grad.split([int(count) for count in channels], 1)
