"""Random calls of the pyramidal convolution, and what they should compute."""

import random
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Call(NamedTuple):
    x: Tensor
    weights: list[Tensor]
    bias: Tensor | None
    groups: list[int]
    stride: int
    dilation: int

    def to(self, dtype: torch.dtype) -> 'Call':
        return self._replace(
            x=self.x.to(dtype),
            weights=[weight.to(dtype) for weight in self.weights],
            bias=None if self.bias is None else self.bias.to(dtype),
        )

    def absolute(self) -> 'Call':
        """The call whose output sums what this one's sums, without signs."""
        return self._replace(
            x=self.x.abs(),
            weights=[weight.abs() for weight in self.weights],
            bias=None if self.bias is None else self.bias.abs(),
        )


def random_call(seed: int, min_batch: int = 0) -> Call:
    """A float64 call of random shape, levels, kernels (also rectangular), groups, stride, dilation, bias and format."""
    rng = random.Random(seed)
    generator = torch.Generator().manual_seed(seed)
    in_channels = rng.choice([1, 4, 6, 8])
    divisors = [group for group in (1, 2, 3, 4, 8) if in_channels % group == 0]

    def tensor(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    x = tensor(rng.randint(min_batch, 3), in_channels, rng.randint(1, 14), rng.randint(1, 14))
    if rng.random() < 0.5:
        x = x.to(memory_format=torch.channels_last)
    groups = [rng.choice(divisors) for _ in range(rng.randint(1, 4))]
    weights = []
    for group in groups:
        height = rng.choice([1, 3, 5, 7, 9])
        width = height if rng.random() < 0.7 else rng.choice([1, 3, 5])
        weights.append(tensor(group * rng.randint(1, 4), in_channels // group, height, width))
    bias = tensor(sum(weight.shape[0] for weight in weights)) if rng.random() < 0.5 else None
    return Call(x, weights, bias, groups, rng.choice([1, 1, 2, 3]), rng.choice([1, 1, 2, 4]))


def by_level(call: Call) -> Tensor:
    """The definition: zero padding, then one valid convolution per level and group."""
    outputs, begin = [], 0
    for weight, group in zip(call.weights, call.groups):
        up, left = (call.dilation * (side // 2) for side in weight.shape[2:])
        padded = F.pad(call.x, (left, left, up, up))
        inside, outside = weight.shape[1], weight.shape[0] // group
        for i in range(group):
            end = begin + outside
            outputs.append(
                F.conv2d(
                    padded[:, i * inside : (i + 1) * inside],
                    weight[i * outside : (i + 1) * outside],
                    None if call.bias is None else call.bias[begin:end],
                    call.stride,
                    0,
                    call.dilation,
                )
            )
            begin = end
    return torch.cat(outputs, 1)
