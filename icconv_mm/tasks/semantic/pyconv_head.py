"""PyConvHead: pyramidal convolutions on the whole map and on a pooled one, merged.

PyConvSegNet, https://arxiv.org/abs/2006.11538, section 4.2 and figure 5.
"""

import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule, build_activation_layer, build_norm_layer
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from torch import Tensor, nn

from icconv_mm.errors import InputError
from icconv_mm.layers import PyConv2d
from icconv_mm.registry import MODELS

KERNEL_SIZES = (3, 5, 7, 9)
GROUPS = (1, 4, 8, 16)


class PyConvContext(nn.Module):
    """A 1x1 convolution, a pyramidal convolution of four levels and a 1x1 convolution, each with norm and activation.

    Args:
        in_channels: C_in.
        channels: C_out, and the channels in between.
        norm_cfg, act_cfg: Configs of the norms and of the activations; None for none.
    """

    def __init__(self, in_channels: int, channels: int, norm_cfg: dict | None, act_cfg: dict | None):
        super().__init__()
        settings = dict(norm_cfg=norm_cfg, act_cfg=act_cfg)
        self.reduce = ConvModule(in_channels, channels, 1, **settings)
        levels = len(KERNEL_SIZES)
        self.pyconv = PyConv2d(channels, [channels // levels] * levels, KERNEL_SIZES, GROUPS, bias=norm_cfg is None)
        self.norm = nn.Identity() if norm_cfg is None else build_norm_layer(norm_cfg, channels)[1]
        self.activate = nn.Identity() if act_cfg is None else build_activation_layer(act_cfg)
        self.project = ConvModule(channels, channels, 1, **settings)

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``[N, C_in, H, W]`` to ``[N, C_out, H, W]``."""
        return self.project(self.activate(self.norm(self.pyconv(self.reduce(x)))))


@MODELS.register_module()
class PyConvHead(BaseDecodeHead):
    """The head of PyConvSegNet, on the last stage of a backbone of output stride 8 or 16.

    The local branch reads the feature map at full size, the global one pooled to ``pool_size`` x ``pool_size``; its
    result is resized to full size. Both are concatenated, the local one first, and merged by a 3x3 convolution.

    Args:
        in_channels: C_in, the channels of the stage that the head reads.
        channels: Channels of the merged map, before the classifier; 256 by default, as in the paper.
        pyconv_channels: Channels of each branch, a multiple of 64; 512 by default, as in the paper.
        pool_size: Height and width of the pooled map; 9 by default.
        align_corners: Whether interpolation aligns the corners; True by default, as for the published weights.
        **kwargs: Arguments of mmseg's ``BaseDecodeHead``: num_classes, in_index, norm_cfg, dropout_ratio,
            loss_decode ...

    Raises:
        InputError: If the channels do not fit the levels; in training, if the feature map is smaller than the pooling.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int = 256,
        *,
        pyconv_channels: int = 512,
        pool_size: int = 9,
        align_corners: bool = True,
        **kwargs,
    ):
        super().__init__(in_channels, channels, align_corners=align_corners, **kwargs)
        if pyconv_channels < 1 or pyconv_channels % 64 or pool_size < 1:
            raise InputError(
                'pyconv_channels must be a multiple of 64 (four levels of up to 16 groups) and pool_size at least 1, '
                f'got {pyconv_channels} and {pool_size}'
            )
        self.pool_size = pool_size
        settings = dict(norm_cfg=self.norm_cfg, act_cfg=self.act_cfg)
        self.local_context = PyConvContext(self.in_channels, pyconv_channels, **settings)
        self.global_context = PyConvContext(self.in_channels, pyconv_channels, **settings)
        self.merge = ConvModule(2 * pyconv_channels, self.channels, 3, padding=1, **settings)

    def forward(self, inputs: tuple[Tensor, ...]) -> Tensor:
        """Maps the stages of the backbone to ``[N, num_classes, H, W]``, the size of stage ``in_index``."""
        return self.cls_seg(self.features(self._transform_inputs(inputs)))

    def features(self, x: Tensor) -> Tensor:
        """Maps ``[N, C_in, H, W]`` to the merged map ``[N, channels, H, W]``."""
        size = x.shape[2:]
        if self.training and min(size) < self.pool_size:
            raise InputError(
                f'PyConvHead: a feature map of {size[0]}x{size[1]} is smaller than its global pooling of '
                f'{self.pool_size}x{self.pool_size}: train on larger crops, or at a smaller output stride'
            )
        context = self.global_context(F.adaptive_avg_pool2d(x, self.pool_size))
        context = F.interpolate(context, size=size, mode='bilinear', align_corners=self.align_corners)
        return self.merge(torch.cat([self.local_context(x), context], 1))
