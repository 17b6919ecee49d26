"""Random calls of the inception convolution, and what they should compute."""

import random
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Call(NamedTuple):
    x: Tensor
    weight: Tensor
    bias: Tensor | None
    pattern: list[tuple[int, int, int]]
    stride: int
    groups: int

    def to(self, dtype: torch.dtype) -> 'Call':
        return self._replace(
            x=self.x.to(dtype), weight=self.weight.to(dtype), bias=None if self.bias is None else self.bias.to(dtype)
        )


def random_pattern(rng: random.Random, out_channels: int, d_max: int) -> list[tuple[int, int, int]]:
    """Runs of random lengths and dilations, which may repeat and stop anywhere."""
    runs, left = [], out_channels
    while left:
        count = rng.randint(1, left)
        runs.append((count, rng.randint(1, d_max), rng.randint(1, d_max)))
        left -= count
    return runs


def random_call(seed: int, min_batch: int = 0) -> Call:
    """A float64 call of random shape, groups, stride, pattern, bias and memory format."""
    rng = random.Random(seed)
    generator = torch.Generator().manual_seed(seed)
    groups = rng.choice([1, 1, 1, 2, 3, 4])
    group_in, out_channels = rng.randint(1, 6), groups * rng.randint(1, 7)
    batch, height, width = rng.randint(min_batch, 3), rng.randint(1, 14), rng.randint(1, 14)

    def tensor(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    x, weight = tensor(batch, groups * group_in, height, width), tensor(out_channels, group_in, 3, 3)
    bias = tensor(out_channels) if rng.random() < 0.5 else None
    if rng.random() < 0.5:
        x = x.to(memory_format=torch.channels_last)
    if rng.random() < 0.25:
        weight = weight.to(memory_format=torch.channels_last)
    return Call(x, weight, bias, random_pattern(rng, out_channels, 5), rng.choice([1, 1, 2, 3]), groups)


def wide_call(seed: int) -> Call:
    """A float64 call whose channels mostly fill vectors, so that kernels of vectors serve it; maps up to 40 x 40."""
    rng = random.Random(seed)
    generator = torch.Generator().manual_seed(seed)
    groups = rng.choice([1, 1, 1, 1, 2, 3])
    group_in = rng.choice([8, 16, 24, 32, 40, 64, 72, 100])
    group_out = rng.choice([8, 16, 24, 40, 64, 72, 136, rng.randint(2, 90)])
    batch, height, width = rng.randint(1, 3), rng.randint(1, 40), rng.randint(1, 40)
    d_max = rng.choice([1, 2, 4, 4, 4, 6, 12, 24])

    def tensor(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    x = tensor(batch, groups * group_in, height, width)
    weight = tensor(groups * group_out, group_in, 3, 3)
    if rng.random() < 0.7:
        x = x.to(memory_format=torch.channels_last)
    if rng.random() < 0.5:
        weight = weight.to(memory_format=torch.channels_last)
    bias = tensor(groups * group_out) if rng.random() < 0.5 else None
    # runs of one channel to all but one (a single run is torch's own convolution), some dilations in several places
    pattern, left = [(1, rng.randint(1, d_max), rng.randint(1, d_max))], groups * group_out - 1
    while left:
        count = min(left, rng.choice([1, 1, 2, 3, 5, 8, 16, 40, left]))
        pattern.append((count, rng.randint(1, d_max), rng.randint(1, d_max)))
        left -= count
    return Call(x, weight, bias, pattern, rng.choice([1, 1, 1, 2, 2, 3]), groups)


def per_run(call: Call) -> Tensor:
    """The definition, run by run and group by group."""
    group_in, group_out = call.weight.shape[1], call.weight.shape[0] // call.groups
    outputs, begin = [], 0
    for count, *dilation in call.pattern:
        end = begin + count
        while begin < end:
            group = begin // group_out
            stop = min(end, (group + 1) * group_out)
            outputs.append(
                F.conv2d(
                    call.x[:, group * group_in : (group + 1) * group_in],
                    call.weight[begin:stop],
                    None if call.bias is None else call.bias[begin:stop],
                    call.stride,
                    dilation,
                    dilation,
                )
            )
            begin = stop
    return torch.cat(outputs, 1)
