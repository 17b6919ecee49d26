"""Conversion of 3x3 convolutions to pyramidal ones, by tables of a network's stages."""

from collections.abc import Sequence
from itertools import accumulate, pairwise
from math import gcd

import torch
from torch import nn

from icconv_mm.errors import InputError
from icconv_mm.layers.convert import check_padding
from icconv_mm.layers.pyconv import PyConv2d
from icconv_mm.torch_private import has_data

# PyConv, https://arxiv.org/abs/2006.11538, section 4 and table 1: the kernels and the groups of each stage, by level
STAGE_KERNELS = ((3, 5, 7, 9), (3, 5, 7), (3, 5), (3,))
STAGE_GROUPS = ((1, 4, 8, 16), (1, 4, 8), (1, 4), (1,))
# number of levels -> the share of the output channels of each
LEVEL_SHARES = {1: (1.0,), 2: (0.5, 0.5), 3: (0.25, 0.25, 0.5), 4: (0.25, 0.25, 0.25, 0.25)}


def check_stages(stage_kernels: Sequence, stage_groups: Sequence, num_stages: int) -> None:
    """Raises InputError, with the stage and the numbers, if the tables do not fit the stages or each other.

    A network of fewer stages may have the tables of all four.
    """
    for name, table in (('stage_kernels', stage_kernels), ('stage_groups', stage_groups)):
        if not (isinstance(table, Sequence) and all(isinstance(each, Sequence) for each in table)):
            raise InputError(
                f'{name} must be a list with a list of numbers, one per level, for each stage, got {table!r}'
            )
    if not all(num_stages <= len(table) <= len(STAGE_KERNELS) for table in (stage_kernels, stage_groups)):
        raise InputError(
            f'stage_kernels and stage_groups must have one entry for each of the {num_stages} stages of the backbone, '
            f'got {len(stage_kernels)} and {len(stage_groups)}'
        )
    for stage, (kernels, groups) in enumerate(zip(stage_kernels, stage_groups)):
        if len(kernels) not in LEVEL_SHARES:
            raise InputError(f'stage_kernels[{stage}] must have 1 to 4 levels, got {tuple(kernels)}')
        if len(kernels) != len(groups):
            raise InputError(
                f'stage_kernels[{stage}] has {len(kernels)} levels, {tuple(kernels)}, and stage_groups[{stage}] '
                f'{len(groups)}, {tuple(groups)}: give both tables, with one entry per level'
            )


def to_pyconv(conv: nn.Conv2d, kernels: Sequence[int], groups: Sequence[int], exact: bool = True) -> nn.Module:
    """Returns a pyramidal convolution with the channels, stride, dilation and kind of a 3x3 one, and He weights.

    Args:
        conv: The 3x3 convolution. A weight-standardised one gives weight-standardised levels.
        kernels: Kernel size of each of 1 to 4 levels; one level is an ordinary convolution.
        groups: Groups of each level.
        exact: Refuse groups that do not divide the channels of a level. Otherwise use the most that divide them, if
            possible no fewer than those of ``conv``.

    Raises:
        InputError: If the groups do not divide the channels, there are fewer channels than levels, or ``conv`` does
            not keep the size.
    """
    check_padding(conv)
    if conv.kernel_size != (3, 3) or conv.padding != conv.dilation or len({*conv.stride}) + len({*conv.dilation}) > 2:
        raise InputError(f'expected a 3x3 convolution that keeps the size, alike on both axes, got {conv}')
    ends = [round(conv.out_channels * share) for share in accumulate((0.0, *LEVEL_SHARES[len(kernels)]))]
    channels = [end - start for start, end in pairwise(ends)]
    if not min(channels):
        raise InputError(f'{conv.out_channels} channels are too few for {len(kernels)} levels')
    if not exact:
        common = [gcd(conv.in_channels, size) for size in channels]
        groups = [_divisor(size, max(group, conv.groups)) for size, group in zip(common, groups)]
    bias = conv.bias is not None
    with torch.device('meta'):  # checks the numbers
        new = PyConv2d(conv.in_channels, channels, kernels, groups, conv.stride[0], conv.dilation[0], bias)
    for index, level in enumerate(new.pyconv_levels):
        new.pyconv_levels[index] = _level(conv, level)
    new = new.pyconv_levels[0] if len(kernels) == 1 else new
    if has_data(conv.weight):
        new.to(conv.weight)
    return new.requires_grad_(conv.weight.requires_grad).train(conv.training)


def _level(conv: nn.Conv2d, level: nn.Conv2d) -> nn.Conv2d:
    """Returns a convolution of the kind of ``conv`` with the numbers of ``level``."""
    size = level.in_channels, level.out_channels, level.kernel_size
    with conv.weight.device:
        new = type(conv)(*size, level.stride, level.padding, level.dilation, level.groups, level.bias is not None)
    if hasattr(conv, 'eps'):
        new.eps = conv.eps
    nn.init.kaiming_normal_(new.weight, mode='fan_out', nonlinearity='relu')
    return new


def _divisor(number: int, most: int) -> int:
    """Returns the largest divisor of ``number`` up to ``most``."""
    return next(divisor for divisor in range(min(number, most), 0, -1) if number % divisor == 0)
