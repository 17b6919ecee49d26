"""Heads that see a region on every level of the pyramid: PANet's (https://arxiv.org/abs/1803.01534), with which FPT was
trained.

mmdet's ``GenericRoIExtractor(aggregation='concat')`` pools each region from all levels, whatever its size. The first
layer of a head is then a path for each level; their outputs are fused by their maximum ("adaptive feature pooling").
"""

from collections.abc import Callable
from functools import reduce
from typing import Any

import torch
from mmcv.cnn import ConvModule, build_norm_layer
from mmdet.models.roi_heads.bbox_heads import BBoxHead, ConvFCBBoxHead
from mmdet.models.roi_heads.mask_heads import FCNMaskHead
from torch import Tensor, nn

from icconv_mm.errors import InputError
from icconv_mm.registry import MODELS

_GROUP_NORM = {'type': 'GN', 'num_groups': 32}


class LevelPaths(nn.ModuleList):
    """A path for each level of the pyramid, fused by their maximum.

    Args:
        num_levels: Levels that a region is pooled from.
        channels: Channels of each.
        path: Builds the path of a level.
    """

    def __init__(self, num_levels: int, channels: int, path: Callable[[], nn.Module]):
        super().__init__(path() for _ in range(num_levels))
        self.channels = channels

    def forward(self, regions: Tensor) -> Tensor:
        """The regions ``[N, num_levels * channels, H, W]`` of all levels, finest first, as one map.

        Raises:
            InputError: If they have other channels.
        """
        if regions.shape[1] != len(self) * self.channels:
            raise InputError(
                f'a PANet head expected the regions of {len(self)} levels with {self.channels} channels each, one '
                f"after another, as GenericRoIExtractor(aggregation='concat', out_channels={len(self) * self.channels})"
                f' gives them; got a map of shape {list(regions.shape)}'
            )
        return reduce(torch.maximum, (path(level) for path, level in zip(self, regions.split(self.channels, 1))))


def _conv(in_channels: int, out_channels: int, norm_cfg: dict | None) -> ConvModule:
    return ConvModule(in_channels, out_channels, 3, padding=1, norm_cfg=norm_cfg)


@MODELS.register_module()
class PANetBBoxHead(ConvFCBBoxHead):
    """A convolution for each level, fused, three more and a fully connected layer: mmdet's ``Shared4Conv1FCBBoxHead``
    whose first convolution has four forms.

    Args:
        num_levels: Levels that a region is pooled from.
        norm_cfg: Norm of the convolutions.
        **kwargs: Arguments of ``ConvFCBBoxHead``; ``in_channels`` are those of one level.
    """

    def __init__(self, num_levels: int = 4, norm_cfg: dict | None = _GROUP_NORM, **kwargs: Any):
        super().__init__(**{'num_shared_convs': 3, 'num_shared_fcs': 1, 'norm_cfg': norm_cfg, **kwargs})
        channels = self.in_channels
        self.level_paths = LevelPaths(num_levels, channels, lambda: _conv(channels, channels, norm_cfg))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Class scores ``[N, K + 1]`` and box regressions ``[N, 4 K]`` of the regions of all levels."""
        return super().forward(self.level_paths(x))


@MODELS.register_module()
class PANet2FCBBoxHead(BBoxHead):
    """A fully connected layer for each level, fused, and another one, with group norm.

    Args:
        num_levels: Levels that a region is pooled from.
        fc_out_channels: Outputs of the fully connected layers.
        norm_cfg: Norm behind each of them.
        **kwargs: Arguments of ``BBoxHead``; ``in_channels`` are those of one level.
    """

    def __init__(self, num_levels: int = 4, fc_out_channels: int = 1024, norm_cfg: dict = _GROUP_NORM, **kwargs: Any):
        in_channels, size = kwargs.get('in_channels', 256), kwargs.get('roi_feat_size', 7)
        super().__init__(**kwargs)

        def fc(inputs: int) -> nn.Sequential:
            norm = build_norm_layer(norm_cfg, fc_out_channels)[1]
            return nn.Sequential(nn.Flatten(), nn.Linear(inputs, fc_out_channels), norm, nn.ReLU(inplace=True))

        self.level_paths = LevelPaths(num_levels, in_channels, lambda: fc(in_channels * size**2))
        self.shared_fc = fc(fc_out_channels)
        self.fc_cls = nn.Linear(fc_out_channels, self.fc_cls.out_features)
        self.fc_reg = nn.Linear(fc_out_channels, self.fc_reg.out_features)

    def init_weights(self) -> None:
        super().init_weights()
        for module in (*self.level_paths.modules(), *self.shared_fc.modules()):
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Class scores ``[N, K + 1]`` and box regressions ``[N, 4 K]`` of the regions of all levels."""
        x = self.shared_fc(self.level_paths(x))
        return self.fc_cls(x), self.fc_reg(x)


@MODELS.register_module()
class PANetMaskHead(FCNMaskHead):
    """mmdet's ``FCNMaskHead`` with a first convolution for each level, and a fully connected branch ("fully-connected
    fusion") that adds one mask to those of all classes.

    Args:
        num_levels: Levels that a region is pooled from.
        norm_cfg: Norm of the convolutions.
        **kwargs: Arguments of ``FCNMaskHead``; ``in_channels`` are those of one level. The branch leaves after all
            ``num_convs`` but the last.
    """

    def __init__(self, num_levels: int = 4, norm_cfg: dict | None = _GROUP_NORM, **kwargs: Any):
        super().__init__(**{'num_convs': 3, 'norm_cfg': norm_cfg, **kwargs})
        channels, inner = self.in_channels, self.conv_out_channels
        self.level_paths = LevelPaths(num_levels, channels, lambda: _conv(channels, channels, norm_cfg))
        self.fc_convs = nn.Sequential(_conv(inner, inner, norm_cfg), _conv(inner, inner // 2, norm_cfg))
        height, width = self.roi_feat_size
        self.mask_size = (height * self.scale_factor, width * self.scale_factor)
        self.mask_fc = nn.Linear(inner // 2 * height * width, self.mask_size[0] * self.mask_size[1])

    def init_weights(self) -> None:
        super().init_weights()
        nn.init.normal_(self.mask_fc.weight, std=0.01)
        nn.init.zeros_(self.mask_fc.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Mask logits ``[N, classes, 2 H, 2 W]`` of the regions of all levels."""
        x = self.level_paths(x)
        for conv in self.convs[:-1]:
            x = conv(x)
        whole = self.mask_fc(self.fc_convs(x).flatten(1)).relu().view(-1, 1, *self.mask_size)
        return self.conv_logits(self.upsample(self.convs[-1](x)).relu()) + whole
