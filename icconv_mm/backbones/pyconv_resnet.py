"""PyConvResNet and PyConvHGResNet: ResNets whose 3x3 convolutions are pyramidal convolutions.

Pyramidal Convolution: Rethinking Convolutional Neural Networks for Visual Recognition, 2020,
https://arxiv.org/abs/2006.11538, section 4.

Differences from a ResNet: the kernels of a stage, by the tables below; no max pooling in the stem, so the first stage
has its stride; a strided shortcut has a 3x3 max pooling before its 1x1 convolution.
"""

from collections.abc import Sequence
from itertools import accumulate, pairwise
from math import gcd
from typing import Literal

import torch
from torch import nn

from icconv_mm.backbones.blocks import BasicBlock, Block, Bottleneck
from icconv_mm.backbones.resnet import ResNet
from icconv_mm.compat import MODELS, build_norm_layer
from icconv_mm.errors import InputError, naming
from icconv_mm.layers.convert import check_padding
from icconv_mm.layers.fast_eval import Shortcut
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
        if not (isinstance(table, Sequence) and all(isinstance(row, Sequence) for row in table)):
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
    for index, level in enumerate(new.pyconv_levels):  # of the kind of the convolution
        size = level.in_channels, level.out_channels, level.kernel_size
        with conv.weight.device:
            convolution = type(conv)(*size, level.stride, level.padding, level.dilation, level.groups, bias)
        if hasattr(conv, 'eps'):
            convolution.eps = conv.eps
        nn.init.kaiming_normal_(convolution.weight, mode='fan_out', nonlinearity='relu')
        new.pyconv_levels[index] = convolution
    new = new.pyconv_levels[0] if len(kernels) == 1 else new
    if has_data(conv.weight):
        new.to(conv.weight)
    return new.requires_grad_(conv.weight.requires_grad).train(conv.training)


def _divisor(number: int, most: int) -> int:
    """Returns the largest divisor of ``number`` up to ``most``."""
    return next(divisor for divisor in range(min(number, most), 0, -1) if number % divisor == 0)


class PyConvBasicBlock(BasicBlock):
    """The basic block of the released networks: a pyramidal convolution, then a 1x1 one."""

    kernel_sizes = (3, 1)


@MODELS.register_module()
class PyConvResNet(ResNet):
    """PyConvResNet.

    Args:
        depth: 18, 34, 50, 101 or 152.
        two_pyconvs: Whether blocks of depth 18 and 34 have two pyramidal convolutions, as in the paper; by default the
            second convolution is 1x1, as in the released networks.
        stage_kernels: The kernel sizes of each stage, one per level; a stage of one level has an ordinary convolution.
        stage_groups: The groups of each stage, one per level. By default the paper's, or as many of them as divide the
            channels where ``base_channels`` is not 64.
        strides: Stride of each stage; (1, 2, 2, 2) by default, as for a ResNet. The stem of this network has no max
            pooling, so the first stage multiplies its stride by 2: one config fits both networks.
        groups: Least number of groups of a level where ``stage_groups`` is not given. With the ``base_width`` of a
            ResNeXt the network is the pyramidal form of that ResNeXt.
        **kwargs: Arguments of :class:`icconv_mm.backbones.resnet.ResNet` but ``avg_down``. Stages with ``dcn`` are
            deformable instead of pyramidal. The first stage is as with ``with_cp='norms'``, unless that is True.

    Raises:
        InputError: If an argument is out of range; the message names it and what was expected.

    Example:
        >>> net = PyConvResNet(18, out_indices=(2, 3))
        >>> [level.shape for level in net(torch.randn(1, 3, 64, 64))]
        [torch.Size([1, 256, 4, 4]), torch.Size([1, 512, 2, 2])]
    """

    stem_stride = 2
    default_groups = STAGE_GROUPS

    def __init__(
        self,
        depth: int,
        two_pyconvs: bool = False,
        stage_kernels: Sequence[Sequence[int]] = STAGE_KERNELS,
        stage_groups: Sequence[Sequence[int]] | None = None,
        **kwargs,
    ):
        self.two_pyconvs = two_pyconvs
        self.stage_kernels = stage_kernels
        self.exact_groups = stage_groups is not None
        self.stage_groups = stage_groups or self.default_groups
        super().__init__(depth, **kwargs)

    # --- the parts that differ

    def check_arguments(self, num_stages: int) -> None:
        """Checks the arguments of a ResNet, and the tables of kernels and groups."""
        super().check_arguments(num_stages)
        if self.avg_down:
            raise InputError(f'{type(self).__name__} pools its shortcuts by maximum: avg_down must be False')
        if self.two_pyconvs and self.arch_settings[self.depth][0] is Bottleneck:
            raise InputError(f'two_pyconvs needs basic blocks (depth 18 or 34), got depth {self.depth}')
        check_stages(self.stage_kernels, self.stage_groups, num_stages)

    def make_stem(self, in_channels: int, channels: int) -> None:
        """Builds a stem that ends at half the resolution of the image; the first stage halves it again."""
        super().make_stem(in_channels, channels)
        self.maxpool = nn.Identity()

    def stage_stride(self, stage: int) -> int:
        """Returns a ResNet's stride; the first stage adds the factor of 2 of the missing pooling."""
        return super().stage_stride(stage) * (2 if stage == 0 else 1)

    def stage_with_cp(self, stage: int) -> bool | Literal['norms']:
        """Returns a ResNet's setting; without pooling the first maps are four times as large, and kept only once."""
        return super().stage_with_cp(stage) or ('norms' if stage == 0 else False)

    def block_type(self) -> type[Block]:
        """Returns a ResNet's block; the second convolution of a basic block is 1x1 unless ``two_pyconvs`` is set."""
        block = super().block_type()
        return PyConvBasicBlock if block is BasicBlock and not self.two_pyconvs else block

    def make_conv3x3(self, in_channels: int, out_channels: int, stride: int, stage: int, dilation: int) -> nn.Module:
        """Returns the pyramidal convolution of a block, an ordinary one for one level, or a deformable one."""
        conv = super().make_conv3x3(in_channels, out_channels, stride, stage, dilation)
        if self.dcn and self.stage_with_dcn[stage]:
            return conv
        with naming(f'layer{stage + 1}', ValueError):
            return to_pyconv(conv, self.stage_kernels[stage], self.stage_groups[stage], self.exact_groups)

    def make_downsample(self, in_channels: int, out_channels: int, stage: int, stride: int) -> nn.Module | None:
        """Returns the shortcut of a block, or None for the identity.

        The convolution is ``downsample.1`` and its norm ``downsample.2`` for any stride. A stage that is dilated
        instead of strided keeps the pooling, at stride 1.
        """
        pools = stride > 1 or self.dilations[stage] > 1
        pool = nn.MaxPool2d(3, stride, padding=1) if pools else nn.Identity()
        if in_channels == out_channels:
            return pool if stride > 1 else None
        conv = self.make_conv1x1(in_channels, out_channels, 1)
        return Shortcut(pool, conv, build_norm_layer(self.norm_cfg, out_channels)[1])


@MODELS.register_module()
class PyConvHGResNet(PyConvResNet):
    """PyConvHGResNet: bottlenecks of twice the width whose levels have many groups ("high groups").

    Args:
        depth: 50, 101 or 152.
        **kwargs: Arguments of :class:`PyConvResNet`.

    Example:
        >>> net = PyConvHGResNet(50, out_indices=(3,))
        >>> net.layer1[0].conv2.groups, net(torch.randn(1, 3, 64, 64))[0].shape
        ((32, 32, 32, 32), torch.Size([1, 2048, 2, 2]))
    """

    arch_settings = {depth: ResNet.arch_settings[depth] for depth in (50, 101, 152)}
    default_groups = ((32, 32, 32, 32), (32, 64, 64), (32, 64), (32,))

    def block_width(self, planes: int) -> int:
        """Returns the channels of the pyramidal convolution of a bottleneck."""
        return super().block_width(planes) if self.groups > 1 else 2 * planes
