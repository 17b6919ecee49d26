"""The unscathed feature pyramid (UFP) of FPT for segmentation: levels of one size with growing receptive fields.

Beside it, a neck of several necks in a row.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from icconv_mm.arguments import check_all_positive, check_positive
from icconv_mm.compat import MODELS, BaseModule, ConvModule, ModuleList
from icconv_mm.errors import InputError, naming


class GlobalConvolution(nn.Module):
    """A large kernel as the sum of two separable ones, ``k x 1`` then ``1 x k`` and the other way round.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output, and between the two convolutions.
        kernel_size: k, odd.
        norm_cfg: Config of the norm after the sum; None for none.

    Source: Large Kernel Matters, https://arxiv.org/abs/1703.02719, figure 3 B.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, norm_cfg: dict | None = None):
        super().__init__()
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise InputError(f'the kernel of a global convolution must be odd and positive, got {kernel_size}')
        tall, wide = (kernel_size, 1), (1, kernel_size)
        self.branches = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(in_channels, out_channels, first, padding=(first[0] // 2, first[1] // 2)),
                nn.Conv2d(out_channels, out_channels, second, padding=(second[0] // 2, second[1] // 2)),
            )
            for first, second in ((tall, wide), (wide, tall))
        )
        self.refine = ConvModule(out_channels, out_channels, 1, norm_cfg=norm_cfg)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C_in, H, W]`` -> ``[B, C_out, H, W]``."""
        return self.refine(self.branches[0](x) + self.branches[1](x))


@MODELS.register_module()
class UnscathedPyramid(BaseModule):
    """Global convolutions of several kernels on one level of a backbone: a pyramid whose levels have one size.

    Feature Pyramid Transformer (https://arxiv.org/abs/2007.09451), section 3.5: kernels of 1, 7, 15 and 31 on the last
    level of a dilated ResNet. A 1x1 convolution first reduces its 2048 channels to those of the output, which the paper
    does not mention: kernels of 31 on all of them would have 50 million weights.

    Args:
        in_channels: Channels of the input level.
        out_channels: Channels of each level of the output; 256 by default.
        in_index: Index of the input level; the last by default.
        kernel_sizes: Odd kernel size of each level of the output; (1, 7, 15, 31) by default.
        norm_cfg: Config of the norm layers; GroupNorm of 32 groups by default; None for none.
        init_cfg: mmengine initialisation.

    Raises:
        InputError: If a kernel is even or ``kernel_sizes`` is empty, channels are not positive, or the norm does not
            fit ``out_channels``; in ``forward``, if there is no level ``in_index`` or it has other channels.

    Example:
        >>> neck = UnscathedPyramid(in_channels=64, out_channels=32, kernel_sizes=(1, 7))
        >>> [level.shape for level in neck([torch.randn(1, 64, 16, 16)])]
        [torch.Size([1, 32, 16, 16]), torch.Size([1, 32, 16, 16])]
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int = 256,
        in_index: int = -1,
        kernel_sizes: Sequence[int] = (1, 7, 15, 31),
        norm_cfg: dict | None = dict(type='GN', num_groups=32),  # noqa: B006
        init_cfg: dict | list[dict] | None = dict(type='Xavier', layer='Conv2d', distribution='uniform'),  # noqa: B006
    ):
        super().__init__(init_cfg)
        with naming('UnscathedPyramid'):
            check_positive(in_channels=in_channels, out_channels=out_channels)
            check_all_positive(kernel_sizes=kernel_sizes)
        self.in_channels, self.in_index = in_channels, in_index
        with naming('UnscathedPyramid: norm_cfg', ValueError):
            self.reduce = ConvModule(in_channels, out_channels, 1, norm_cfg=norm_cfg)
        with naming('UnscathedPyramid: kernel_sizes', ValueError):
            self.levels = nn.ModuleList(
                GlobalConvolution(out_channels, out_channels, size, norm_cfg) for size in kernel_sizes
            )

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The maps of a backbone -> ``len(kernel_sizes)`` maps ``[B, out_channels, H, W]`` of one size."""
        if not -len(inputs) <= self.in_index < len(inputs):
            raise InputError(f'UnscathedPyramid: in_index={self.in_index}, but there are {len(inputs)} levels')
        x = inputs[self.in_index]
        if x.ndim != 4 or x.shape[1] != self.in_channels:
            raise InputError(
                f'UnscathedPyramid: level {self.in_index} must be [B, {self.in_channels}, H, W] (in_channels), '
                f'got {list(x.shape)}'
            )
        x = self.reduce(x)
        return tuple(level(x) for level in self.levels)


@MODELS.register_module()
class SequenceNeck(BaseModule):
    """Several necks in a row as one neck. mmdet and mmseg accept a list instead; mmpose silently ignores a list.

    The keys of neck i are those below ``neck.necks.i.``.

    Args:
        necks: Configs of the necks, the first of which reads the backbone.
        init_cfg: mmengine initialisation.

    Raises:
        InputError: If ``necks`` is empty or no list of configs.

    Example:
        >>> pconv = dict(type='icconv_mm.PConv', in_channels=8, out_channels=8, num_outs=2)
        >>> neck = SequenceNeck([pconv, pconv])
        >>> [level.shape for level in neck([torch.randn(1, 8, 32, 32), torch.randn(1, 8, 16, 16)])]
        [torch.Size([1, 8, 32, 32]), torch.Size([1, 8, 16, 16])]
    """

    def __init__(self, necks: Sequence[dict], init_cfg: dict | list | None = None):
        super().__init__(init_cfg)
        if not necks:
            raise InputError('SequenceNeck: necks is empty')
        if not (isinstance(necks, Sequence) and all(isinstance(neck, dict) for neck in necks)):
            raise InputError(f'SequenceNeck: necks must be a list of dicts, got {necks!r:.60}')
        self.necks = ModuleList(MODELS.build(neck) for neck in necks)

    def forward(self, inputs: Sequence[Tensor]) -> Sequence[Tensor]:
        """Runs the necks one after the other on the backbone's maps."""
        for neck in self.necks:
            inputs = neck(inputs)
        return inputs
