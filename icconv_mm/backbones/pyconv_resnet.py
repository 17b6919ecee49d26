"""PyConvResNet and PyConvHGResNet: ResNets whose 3x3 convolutions are pyramidal convolutions.

Pyramidal Convolution: Rethinking Convolutional Neural Networks for Visual Recognition, 2020,
https://arxiv.org/abs/2006.11538, section 4.

What differs from a ResNet: the kernels of a stage, by the tables below; no max pooling in the stem, whose stride the
first stage takes over; a strided shortcut pools by maximum, 3x3, before its 1x1 convolution.
"""

from collections.abc import Sequence

from mmcv.cnn import build_norm_layer
from torch import nn

from icconv_mm.backbones.resnet import BasicBlock, Bottleneck, ResNet
from icconv_mm.layers import PyConv2d
from icconv_mm.registry import MODELS

STAGE_KERNELS = ((3, 5, 7, 9), (3, 5, 7), (3, 5), (3,))
# number of levels -> the share of the output channels of each
LEVEL_SHARES = {1: (1.0,), 2: (0.5, 0.5), 3: (0.25, 0.25, 0.5), 4: (0.25, 0.25, 0.25, 0.25)}


class PyConvBasicBlock(BasicBlock):
    """A pyramidal convolution, then a 1x1 convolution or a second pyramidal one, and a shortcut."""

    def __init__(self, net: 'PyConvResNet', in_channels: int, planes: int, stage: int, stride: int, dilation: int):
        super().__init__(net, in_channels, planes, stage, stride, dilation)
        if not net.two_pyconvs:
            self.conv2 = nn.Conv2d(planes, planes, 1, bias=False)


@MODELS.register_module()
class PyConvResNet(ResNet):
    """PyConvResNet.

    Args:
        depth: 18, 34, 50, 101 or 152.
        two_pyconvs: Of the networks of basic blocks (18, 34), the paper's form with two pyramidal convolutions to a
            block instead of the released one, whose second convolution is 1x1.
        stage_kernels: The kernel sizes of each stage, one per level; a stage of one level has an ordinary convolution.
        stage_groups: The groups of each stage, one per level.
        strides: Of each stage. As for a ResNet the first is 1: the factor of 2 that is missing to the max pooling of
            its stem is added here, so that configs need not know which of the two they hold.
        **kwargs: Those of :class:`icconv_mm.backbones.resnet.ResNet` but ``groups`` and ``base_width``, which
            ``stage_groups`` replaces, and ``avg_down``.

    Raises:
        ValueError: If an argument is out of range; names it and what was expected.

    Example:
        >>> net = PyConvResNet(18, out_indices=(2, 3))
        >>> [level.shape for level in net(torch.randn(1, 3, 64, 64))]
        [torch.Size([1, 256, 4, 4]), torch.Size([1, 512, 2, 2])]
    """

    arch_settings = {
        depth: (PyConvBasicBlock if block is BasicBlock else block, stages)
        for depth, (block, stages) in ResNet.arch_settings.items()
    }
    default_groups = ((1, 4, 8, 16), (1, 4, 8), (1, 4), (1,))

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
        self.stage_groups = stage_groups or self.default_groups
        super().__init__(depth, **kwargs)

    def _check(self, num_stages: int) -> None:
        super()._check(num_stages)
        name = type(self).__name__
        if (self.groups, self.base_width) != (1, None):
            raise ValueError(f'{name} has stage_groups, not groups and base_width')
        if self.avg_down:
            raise ValueError(f'{name} pools its shortcuts by maximum: avg_down must be False')
        if self.two_pyconvs and self.arch_settings[self.depth][0] is Bottleneck:
            raise ValueError(f'two_pyconvs is for basic blocks, which depth {self.depth} does not have')
        if min(len(self.stage_kernels), len(self.stage_groups)) < num_stages:
            raise ValueError(
                f'stage_kernels and stage_groups must have {num_stages} entries (num_stages), '
                f'got {len(self.stage_kernels)} and {len(self.stage_groups)}'
            )
        for stage, (kernels, groups) in enumerate(zip(self.stage_kernels, self.stage_groups)):
            if len(kernels) != len(groups) or len(kernels) not in LEVEL_SHARES:
                raise ValueError(
                    f'stage {stage}: stage_kernels and stage_groups must have 1 to 4 levels each, '
                    f'got {tuple(kernels)} and {tuple(groups)}'
                )

    # --- the parts that differ

    def make_stem(self, in_channels: int, channels: int) -> None:
        """A stem that ends at half the resolution of the image; the first stage halves it again."""
        super().make_stem(in_channels, channels)
        self.maxpool = nn.Identity()
        self.strides = (2 * self.strides[0], *self.strides[1:])

    def make_conv3x3(self, in_channels: int, out_channels: int, stage: int, stride: int, dilation: int) -> nn.Module:
        """The pyramidal convolution of a block, or the ordinary one of a stage of one level."""
        kernels, groups = self.stage_kernels[stage], self.stage_groups[stage]
        shares = LEVEL_SHARES[len(kernels)]
        channels = [int(share * out_channels) for share in shares]
        try:
            if sum(channels) != out_channels:
                raise ValueError(f'{out_channels} channels cannot be shared out between the levels as {shares}')
            conv = PyConv2d(in_channels, channels, kernels, groups, stride, dilation)
        except ValueError as error:
            raise ValueError(f'layer{stage + 1}: {error}') from None
        return conv.pyconv_levels[0] if len(kernels) == 1 else conv

    def make_downsample(self, in_channels: int, out_channels: int, stage: int, stride: int) -> nn.Module | None:
        """The shortcut of a block, or None where it is the identity.

        The convolution is ``downsample.1`` and its norm ``downsample.2`` whatever the stride. A stage that is dilated
        instead of strided keeps the pooling, at stride 1.
        """
        pools = stride > 1 or self.dilations[stage] > 1
        pool = nn.MaxPool2d(3, stride, padding=1) if pools else nn.Identity()
        if in_channels == out_channels:
            return pool if stride > 1 else None
        conv = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        return nn.Sequential(pool, conv, build_norm_layer(self.norm_cfg, out_channels)[1])


@MODELS.register_module()
class PyConvHGResNet(PyConvResNet):
    """PyConvHGResNet: bottlenecks of twice the width whose levels have many groups ("high groups").

    Args:
        depth: 50, 101 or 152.
        **kwargs: Those of :class:`PyConvResNet`.

    Example:
        >>> net = PyConvHGResNet(50, out_indices=(3,))
        >>> net.layer1[0].conv2.groups, net(torch.randn(1, 3, 64, 64))[0].shape
        ((32, 32, 32, 32), torch.Size([1, 2048, 2, 2]))
    """

    arch_settings = {depth: PyConvResNet.arch_settings[depth] for depth in (50, 101, 152)}
    default_groups = ((32, 32, 32, 32), (32, 64, 64), (32, 64), (32,))

    def block_width(self, planes: int) -> int:
        """Channels of the pyramidal convolution of a bottleneck."""
        return 2 * planes
