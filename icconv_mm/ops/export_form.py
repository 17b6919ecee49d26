"""Inception and pyramidal convolutions as few standard ones for exports, at nearly the cost of a dense network.

Runtimes compute in blocks of channels, so a convolution of 3 channels costs as much as one of 16, and one per dilation
costs far more than the dense layer. Only this module decides how a layer is cut. An inception
convolution keeps a convolution for each of its largest dilations. Its other channels take two steps: a 1x3 convolution
for each dilation of the width gives the three partial sums of a channel, of the upper, middle and lower row of its
filter; one depthwise convolution moves every sum up or down by the channel's dilation of the height, and a 1x1
convolution adds the three. Both are exact: their filters are zeros and ones.
"""

from collections.abc import Sequence
from functools import lru_cache, reduce
from itertools import accumulate
from math import gcd
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from icconv_mm.ops.tensors import triples

BLOCK = 16  # channels that a runtime computes at once, on processors with AVX-512; others have 8
_SINGLE = 1.5  # cost of a product in a convolution with one block of outputs, which reads an input for each product
_MAP = 60  # cost of a channel that a depthwise convolution writes and the next one reads, in products per pixel


class Direct(NamedTuple):
    """One convolution of full filters."""

    dilation: tuple[int, int]  # height and width
    channels: tuple[int, ...]  # the layer's output channels that it computes


class Sums(NamedTuple):
    """The two steps of the other channels."""

    # for each horizontal dilation the channels whose rows a 1x3 convolution sums
    rows: tuple[tuple[int, tuple[int, ...]], ...]
    heights: dict[int, int]  # the vertical dilation, by channel

    @property
    def channels(self) -> list[int]:
        return [channel for _, part in self.rows for channel in part]

    @property
    def slots(self) -> list[tuple[int, int] | None]:
        """Returns the layer's channel and filter row of each channel of the 1x3 convolutions; None for padding."""
        return [slot for _, part in self.rows for slot in _padded([(c, row) for row in range(3) for c in part], None)]

    @property
    def step_and_reach(self) -> tuple[int, int]:
        """Returns the dilation of the depthwise filters, and their reach in taps up and down."""
        step = reduce(gcd, self.heights.values())
        return step, max(self.heights.values()) // step

    def cost(self, in_channels: int) -> float:
        """Returns the products per pixel."""
        total, reach = len(self.slots), self.step_and_reach[1]
        return total * (3 * in_channels + _MAP + 2 * reach + 1 + _up(len(self.heights)))


class Plan(NamedTuple):
    """The cut of a layer into standard convolutions."""

    direct: tuple[Direct, ...]
    sums: Sums | None  # None if there are no other channels

    @property
    def convolutions(self) -> int:
        """Returns the number of standard convolutions."""
        return len(self.direct) + (len(self.sums.rows) + 2 if self.sums else 0)

    @property
    def order(self) -> list[int]:
        """Returns the position of each channel of the layer in the concatenated padded outputs."""
        channels = [channel for part in self.direct for channel in _padded(part.channels, -1)]
        channels += _padded(self.sums.channels, -1) if self.sums else []
        return [channels.index(channel) for channel in range(max(channels) + 1)]


@lru_cache(maxsize=1024)
def plan(pattern: tuple[int, ...], in_channels: int) -> Plan:
    """Returns the cheapest cut of a layer without groups.

    Args:
        pattern: Flat table of runs.
        in_channels: Input channels of the layer.
    """
    by_dilation: dict[tuple[int, int], list[int]] = {}
    position = 0
    for count, height, width in triples(pattern):
        by_dilation.setdefault((height, width), []).extend(range(position, position + count))
        position += count
    parts = [Direct(dilation, tuple(part)) for dilation, part in by_dilation.items() if part]
    parts.sort(key=lambda part: -len(part.channels))
    # in the order of channels, so that sorted runs of whole blocks need no permutation
    ordered = (sorted(parts[:count], key=lambda part: part.channels) for count in range(len(parts) + 1))
    cuts = [Plan(tuple(direct), _sums(parts[len(direct) :])) for direct in ordered]
    return min(cuts, key=lambda cut: _cost(cut, in_channels))


def _sums(parts: Sequence[Direct]) -> Sums | None:
    if not parts:
        return None
    rows: dict[int, list[int]] = {}
    for part in parts:
        rows.setdefault(part.dilation[1], []).extend(part.channels)
    heights = {channel: part.dilation[0] for part in parts for channel in part.channels}
    return Sums(tuple((width, tuple(row)) for width, row in sorted(rows.items())), heights)


def _cost(cut: Plan, in_channels: int) -> float:
    direct = sum(_up(len(part.channels)) * 9 * in_channels for part in cut.direct)
    return direct + (cut.sums.cost(in_channels) if cut.sums else 0)


def _up(count: int) -> int:
    return -(-count // BLOCK) * BLOCK


def _padded(entries: Sequence, filler: object) -> list:
    """Returns the entries, filled up to whole blocks."""
    return [*entries, *[filler] * (_up(len(entries)) - len(entries))]


# --- computing by a plan


def inception_output(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    pattern: Sequence[int],
    stride: int = 1,
    *,
    relu: bool = False,
) -> Tensor:
    """``[N, C_in, H, W]``, ``[C_out, C_in, 3, 3]``, ``[C_out]`` -> ``[N, C_out, H', W']``, of standard convolutions."""
    cut = plan(tuple(pattern), int(x.shape[1]))
    outputs = [
        F.conv2d(x, _rows(weight, part.channels), _rows(bias, part.channels), stride, part.dilation, part.dilation)
        for part in cut.direct
    ]
    if cut.sums:
        outputs.append(_summed(x, weight, bias, cut.sums, stride))
    outputs = [output.relu() for output in outputs] if relu else outputs  # runtimes fuse it with each convolution
    joined = torch.cat(outputs, 1) if len(outputs) > 1 else outputs[0]
    if cut.order == list(range(joined.shape[1])):
        return joined
    return joined.index_select(1, _vector(cut.order, x))


def _vector(values: Sequence[int], like: Tensor) -> Tensor:
    """Returns integers as a tensor, by operators alone: decompositions in exports may contain no constants."""
    runs: list[list[int]] = []
    for value in values:
        run = runs[-1] if runs else []
        step = run[1] - run[0] if len(run) > 1 else value - run[0] if run else None
        if step in (0, 1) and value == run[-1] + step:
            run.append(value)
        else:
            runs.append([value])
    parts = [
        torch.full((len(run),), run[0], dtype=torch.long, device=like.device)
        if run[0] == run[-1]
        else torch.arange(run[0], run[-1] + 1, device=like.device)
        for run in runs
    ]
    return torch.cat(parts) if len(parts) > 1 else parts[0]


def _one_hot(values: Sequence[int], count: int, like: Tensor) -> Tensor:
    """Returns ``[len(values), count]``: one-hot rows, a row of zeros for -1."""
    return (_vector(values, like)[:, None] == torch.arange(count, device=like.device)).to(like.dtype)


def _rows(tensor: Tensor | None, channels: Sequence[int]) -> Tensor | None:
    """Returns filters or biases, padded by zeros to whole blocks."""
    if tensor is None:
        return None
    chosen = tensor.index_select(0, _vector(channels, tensor))
    return _fill(chosen, _up(len(channels)))


def _fill(tensor: Tensor, count: int) -> Tensor:
    missing = count - int(tensor.shape[0])
    return torch.cat([tensor, tensor.new_zeros(missing, *tensor.shape[1:])]) if missing else tensor


def _summed(x: Tensor, weight: Tensor, bias: Tensor | None, sums: Sums, stride: int) -> Tensor:
    rows = []
    for width, channels in sums.rows:
        filters = weight.index_select(0, _vector(channels, weight))
        # first the upper rows of all, then the middle ones, then the lower ones
        filters = filters.permute(2, 0, 1, 3).reshape(3 * len(channels), -1, 1, 3)
        rows.append(F.conv2d(x, _fill(filters, _up(3 * len(channels))), None, (1, stride), (0, width), (1, width)))
    partial = torch.cat(rows, 1) if len(rows) > 1 else rows[0]
    step, reach = sums.step_and_reach
    channels, slots = sums.channels, sums.slots
    shifts = [-1 if slot is None else reach + (slot[1] - 1) * sums.heights[slot[0]] // step for slot in slots]
    owners = [-1 if slot is None else channels.index(slot[0]) for slot in slots]
    shifts = _one_hot(shifts, 2 * reach + 1, x)[:, None, :, None]
    total = len(slots)
    shifted = F.conv2d(partial, shifts, None, (stride, 1), (step * reach, 0), (step, 1), groups=total)
    ones = _one_hot(owners, _up(len(channels)), x).t()[..., None, None]
    return F.conv2d(shifted, ones, _rows(bias, channels))


def depthwise_parts(out_channels: int, in_channels: int, groups: int, kernel: tuple[int, int]) -> int:
    """Returns the number of depthwise convolutions for a level of a pyramidal convolution; 0 if it stays as it is.

    Runtimes have no fast kernel for groups of a few channels. Output j of every group is the sum over the inputs of its
    group, each convolved with a filter of its own: a depthwise convolution of all inputs, and a 1x1 convolution that
    adds; runtimes add the sums of several outputs while they compute the 1x1 convolutions.
    """
    if groups == 1:
        return 0
    inside, taps, parts = in_channels // groups, kernel[0] * kernel[1], out_channels // groups
    itself = groups * _up(parts) * inside * taps
    return parts if parts * in_channels * (_MAP + taps + _up(out_channels)) < itself else 0


def _whole_groups(weight: Tensor, groups: int) -> tuple[Tensor, int]:
    """Returns filters ``[C_out, C_in / groups, ...]`` in groups of whole blocks of outputs, by zeros, and the groups.

    A group of fewer outputs costs a runtime as much as one of a block, and ONNX Runtime leaves its fast layout for it.
    """
    outputs, inside, *kernel = map(int, weight.shape)
    parts = outputs // groups
    joined = BLOCK // parts if BLOCK % parts == 0 else 1  # number of groups that become one
    if joined == 1 or groups % joined:
        return weight, groups
    one_hot = _one_hot(range(joined), joined, weight)[None, :, None, :, None, None, None]
    filters = weight.view(-1, joined, parts, 1, inside, *kernel) * one_hot
    return filters.reshape(outputs, joined * inside, *kernel), groups // joined


def pyramidal_output(
    x: Tensor,
    weights: Sequence[Tensor],
    bias: Tensor | None,
    groups: Sequence[int],
    stride: int,
    dilation: int,
    *,
    relu: bool = False,
) -> Tensor:
    """``[N, C_in, H, W]``, weights of levels, ``[C_out]`` -> ``[N, C_out, H', W']``, of standard convolutions."""
    ends = list(accumulate(int(weight.shape[0]) for weight in weights))
    biases = [None if bias is None else bias[begin:end] for begin, end in zip([0, *ends], ends)]
    outputs = [_level(x, *level, stride, dilation) for level in zip(weights, biases, groups)]
    outputs = [output.relu() for output in outputs] if relu else outputs
    return torch.cat(outputs, 1) if len(outputs) > 1 else outputs[0]


def _level(x: Tensor, weight: Tensor, bias: Tensor | None, groups: int, stride: int, dilation: int) -> Tensor:
    out_channels, inside, *kernel = map(int, weight.shape)
    border = [dilation * (side // 2) for side in kernel]
    parts = depthwise_parts(out_channels, inside * groups, groups, tuple(kernel))
    if not parts:
        height = (x.shape[2] - 1) // stride + 1
        # a free height would need a crop, behind which ONNX Runtime no longer fuses the residual sums
        if dilation == 1 and isinstance(height, int):
            rows = rows_at_once((out_channels // groups, inside, *kernel), groups, stride, height)
            if rows > 1:
                return _several_rows(x, weight, bias, groups, stride, rows)
        weight, groups = _whole_groups(weight, groups)
        return F.conv2d(x, weight, bias, stride, border, dilation, groups)
    filters = weight.view(groups, parts, inside, 1, *kernel).transpose(0, 1).reshape(parts, groups * inside, 1, *kernel)
    sums = []
    for part, level in enumerate(filters):
        moved = F.conv2d(x, level, None, stride, border, dilation, groups * inside)
        owners = [channel // inside * parts + part for channel in range(groups * inside)]
        ones = _one_hot(owners, out_channels, x).t()[..., None, None]
        sums.append(F.conv2d(moved, ones, None if part else bias))
    return reduce(torch.add, sums)


def rows_at_once(group: tuple[int, int, int, int], groups: int, stride: int, height: int) -> int:
    """Returns how many output rows a level of a pyramidal convolution computes at once; 1 if it stays as it is.

    Filters of several rows fill a block where those of one group do not. They read the same inputs, in a kernel that is
    higher by their distance.

    Args:
        group: Outputs and inputs of a group, height and width of the kernel.
        groups: Groups of the level.
        stride: Stride.
        height: Rows of the output.
    """
    parts, inside, side, _ = group
    joined = BLOCK // parts if BLOCK % parts == 0 else 1  # as in _whole_groups
    if groups == 1 or joined == 1 or groups % joined or inside % BLOCK:
        return 1
    costs = {1: side * BLOCK * _SINGLE}  # products of a group in a row and column, by its inputs and kernel's width
    for rows in (joined, 2 * joined):
        if height % rows == 0:
            outputs = rows * parts
            costs[rows] = (side + (rows - 1) * stride) * outputs / rows * (_SINGLE if outputs == BLOCK else 1)
    return min(costs, key=costs.get)


def _several_rows(x: Tensor, weight: Tensor, bias: Tensor | None, groups: int, stride: int, rows: int) -> Tensor:
    """Returns a level of which one convolution computes ``rows`` rows as channels."""
    outputs, _, height, width = map(int, weight.shape)
    filters = [F.pad(weight, (0, 0, stride * row, stride * (rows - 1 - row))) for row in range(rows)]
    bias = None if bias is None else bias[:, None].expand(-1, rows).flatten()
    step, border = (stride * rows, stride), (height // 2, width // 2)
    y = F.conv2d(x, torch.stack(filters, 1).flatten(0, 1), bias, step, border, 1, groups)
    y = y.unflatten(1, (outputs, rows)).transpose(2, 3).contiguous()
    return y.view(y.shape[0], outputs, rows * y.shape[2], y.shape[4])
