"""Heads and anchors that mmdet 3 lacks: for pairs of maps (SEPC), PANet, and detectors of mmdet 1.x and of EOD.

PANet's heads (https://arxiv.org/abs/1803.01534), with which FPT was trained, read a region on every level of the
pyramid. mmdet's ``GenericRoIExtractor(aggregation='concat')`` pools each region from all levels, whatever its size. The
first layer of a head is then a path for each level; their outputs are fused by their maximum ("adaptive feature
pooling").

The classes ``EOD...`` cover the differences of EOD (https://github.com/ModelTC/EOD, before: POD), in which IC-Conv's
detectors were trained, from mmdet 3. EOD describes a box by its first and last pixel, with width x2 - x1 + 1. Here
boxes are given by their edges, (x1, y1, x2 + 1, y2 + 1): the same box, for which mmdet's samplers, NMS, levels and
COCO's metric compute what EOD computes.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial, reduce
from typing import Any

import torch
from mmcv.cnn import ConvModule, build_norm_layer
from mmdet.models.roi_heads import CascadeRoIHead, SingleRoIExtractor
from mmdet.models.roi_heads.bbox_heads import BBoxHead, ConvFCBBoxHead
from mmdet.models.roi_heads.mask_heads import FCNMaskHead
from mmdet.models.task_modules.coders import DeltaXYWHBBoxCoder
from mmdet.models.task_modules.prior_generators import AnchorGenerator, LegacyAnchorGenerator, MlvlPointGenerator
from torch import Tensor, nn

from icconv_mm.errors import InputError
from icconv_mm.registry import MODELS, TASK_UTILS


@MODELS.register_module()
def SplitFeatureHead(head_type: str, prior_shift: int = 0, **kwargs) -> nn.Module:
    """Builds a dense head of mmdet that reads pairs (classification map, localisation map) instead of levels.

    This is a function, although configs use it as a ``type``: it returns an object of ``head_type``, with mmdet's keys,
    losses and post-processing. With ``stacked_convs=0`` the pair goes straight to the predictors, as in SEPC
    (https://arxiv.org/abs/2005.03101); ``feat_channels`` must then equal ``in_channels``.

    Args:
        head_type: Type of the head. It must read the levels only in two towers ``cls_convs`` and ``reg_convs``, shared
            by the levels or one for each: RetinaHead, ATSSHead, GFLHead, FCOSHead, PAAHead, VFNetHead,
            RepPointsHead, RTMDetSepBNHead, ...
        prior_shift: Cells by which the head's anchors or points move right and down. ``SEPC(lcconv_padding=0)`` crops
            one cell at every side, so cell (0, 0) of its maps is centred on cell (1, 1). 0: priors start at the origin,
            as the authors' weights expect; 1: priors are where the maps are centred.
        kwargs: Arguments of the head.

    Returns:
        An instance of ``head_type``.

    Raises:
        InputError: If the head lacks such towers or its priors cannot move; in ``forward``, if a level is no pair or
            the head reads a pair outside its towers.
    """
    head = MODELS.build(dict(type=head_type, **kwargs))
    for branch, name in enumerate(('cls_convs', 'reg_convs')):
        attribute = getattr(head, name, None)
        if not isinstance(attribute, nn.ModuleList):
            raise InputError(
                f'SplitFeatureHead: {type(head).__name__} needs two towers of convolutions, cls_convs and reg_convs; '
                f'{name}: {"none" if attribute is None else type(attribute).__name__}'
            )
        per_level = len(attribute) and all(isinstance(tower, nn.ModuleList) for tower in attribute)
        for tower in attribute if per_level else [attribute]:
            if not len(tower):
                tower.append(_Start())
            tower[0].register_forward_pre_hook(partial(_pick, branch=branch))
    if prior_shift:
        _shift_priors(head, prior_shift)
    return head


class _Start(nn.Identity):
    """Start of an empty tower; some heads initialise the ``conv`` of every layer of a tower."""

    conv = None


def _pick(module: nn.Module, args: tuple, branch: int) -> tuple[Tensor]:
    """Returns the input of a tower: its own map of a level's pair."""
    level = args[0]
    if isinstance(level, Tensor) or not isinstance(level, Sequence) or len(level) != 2:
        shape = f'a map of shape {list(level.shape)}' if isinstance(level, Tensor) else f'{type(level).__name__}'
        raise InputError(
            'a head built by SplitFeatureHead takes a pair (classification map, localisation map) per level, as '
            f"icconv_mm.SEPC with branches='both' gives; got {shape}"
        )
    return (level[branch],)


def _shift_priors(head: nn.Module, cells: int) -> None:
    # a head may hold one generator under several names
    generators = {id(value): value for value in vars(head).values() if hasattr(value, 'grid_priors')}
    for generator in generators.values():
        if isinstance(generator, AnchorGenerator):
            generator.base_anchors = [
                anchors + anchors.new_tensor([width, height, width, height]) * cells
                for anchors, (width, height) in zip(generator.base_anchors, generator.strides)
            ]
        elif isinstance(generator, MlvlPointGenerator):
            generator.offset += cells
        else:
            raise InputError(
                f'SplitFeatureHead: prior_shift={cells}: {type(head).__name__} has priors of type '
                f'{type(generator).__name__}, expected AnchorGenerator or MlvlPointGenerator'
            )


@TASK_UTILS.register_module()
class PixelAnchorGenerator(LegacyAnchorGenerator):
    """Anchors of mmdet 1.x, given by their edges.

    mmdet 1.x describes a box by its first and last pixel, (x1, y1, x2, y2) with width x2 - x1 + 1, and rounds anchors
    to whole pixels. The edges of the same boxes are (x1, y1, x2 + 1, y2 + 1). With these as anchors, mmdet 3's own
    coders, assigners and NMS compute what mmdet 1.x computed, half pixels included; mmdet's
    ``LegacyDeltaXYWHBBoxCoder``, in contrast, omits half pixels.

    Args: Those of ``LegacyAnchorGenerator``; ``center_offset`` is 0.5 by default.
    """

    def __init__(self, *args, center_offset: float = 0.5, **kwargs):
        super().__init__(*args, center_offset=center_offset, **kwargs)

    def gen_single_level_base_anchors(self, *args, **kwargs) -> Tensor:
        """Returns base anchors [A, 4] as (left, top, right, bottom) edges in pixels."""
        anchors = super().gen_single_level_base_anchors(*args, **kwargs)
        anchors[:, 2:] += 1
        return anchors


_GROUP_NORM = {'type': 'GN', 'num_groups': 32}


class LevelPaths(nn.ModuleList):
    """A path for each level of the pyramid; the outputs are fused by their maximum.

    Args:
        num_levels: Number of levels that a region is pooled from.
        channels: Channels of each level.
        path: Function that builds the path of a level.
    """

    def __init__(self, num_levels: int, channels: int, path: Callable[[], nn.Module]):
        super().__init__(path() for _ in range(num_levels))
        self.channels = channels

    def forward(self, regions: Tensor) -> Tensor:
        """Fuses the regions ``[N, num_levels * channels, H, W]`` of all levels, finest first, into one map.

        Raises:
            InputError: If they have another number of channels.
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
    with four versions of its first convolution.

    Args:
        num_levels: Number of levels that a region is pooled from.
        norm_cfg: Norm of the convolutions.
        **kwargs: Arguments of ``ConvFCBBoxHead``; ``in_channels`` are those of one level.
    """

    def __init__(self, num_levels: int = 4, norm_cfg: dict | None = _GROUP_NORM, **kwargs: Any):
        super().__init__(**{'num_shared_convs': 3, 'num_shared_fcs': 1, 'norm_cfg': norm_cfg, **kwargs})
        channels = self.in_channels
        self.level_paths = LevelPaths(num_levels, channels, lambda: _conv(channels, channels, norm_cfg))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns class scores ``[N, K + 1]`` and box regressions ``[N, 4 K]`` of the regions of all levels."""
        return super().forward(self.level_paths(x))


@MODELS.register_module()
class PANet2FCBBoxHead(BBoxHead):
    """A fully connected layer for each level, fused, and a second one, with group norm.

    Args:
        num_levels: Number of levels that a region is pooled from.
        fc_out_channels: Outputs of the fully connected layers.
        norm_cfg: Norm after each of them.
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
        """Returns class scores ``[N, K + 1]`` and box regressions ``[N, 4 K]`` of the regions of all levels."""
        x = self.shared_fc(self.level_paths(x))
        return self.fc_cls(x), self.fc_reg(x)


@MODELS.register_module()
class PANetMaskHead(FCNMaskHead):
    """mmdet's ``FCNMaskHead`` with a first convolution for each level, and a fully connected branch ("fully-connected
    fusion") that adds one mask to the masks of all classes.

    Args:
        num_levels: Number of levels that a region is pooled from.
        norm_cfg: Norm of the convolutions.
        **kwargs: Arguments of ``FCNMaskHead``; ``in_channels`` are those of one level. The branch starts before the
            last of the ``num_convs`` convolutions.
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
        """Returns mask logits ``[N, classes, 2 H, 2 W]`` of the regions of all levels."""
        x = self.level_paths(x)
        for conv in self.convs[:-1]:
            x = conv(x)
        whole = self.mask_fc(self.fc_convs(x).flatten(1)).relu().view(-1, 1, *self.mask_size)
        return self.conv_logits(self.upsample(self.convs[-1](x)).relu()) + whole


TO_EDGES = (0, 0, 0, 1, 1)  # added to RoIs (image, x1, y1, x2, y2)


@TASK_UTILS.register_module()
class EODAnchorGenerator(AnchorGenerator):
    """Anchors whose width and height are rounded before they are scaled, as in py-faster-rcnn: 48x24 at stride 4, not
    45.3x22.6, so that ratios differ by level.

    Args: Those of ``AnchorGenerator``; ``center_offset`` is 0.5 by default.
    """

    def __init__(self, *args: Any, center_offset: float = 0.5, **kwargs: Any):
        super().__init__(*args, center_offset=center_offset, **kwargs)

    def gen_single_level_base_anchors(
        self, base_size: int, scales: Tensor, ratios: Tensor, center: tuple[float, float] | None = None
    ) -> Tensor:
        """Returns base anchors ``[ratios * scales, 4]`` of a level as (left, top, right, bottom) edges in pixels."""
        widths = (base_size**2 / ratios).sqrt().round()
        sides = torch.stack([widths, (widths * ratios).round()], -1)
        sides = (sides[:, None] * scales[:, None]).flatten(0, 1)
        middle = sides.new_tensor(center or [self.center_offset * base_size] * 2)
        return torch.cat([middle - sides / 2, middle + sides / 2], -1)


@TASK_UTILS.register_module()
class EODBBoxCoder(DeltaXYWHBBoxCoder):
    """mmdet's coder, except that a box may shrink to nothing and a clipped one keeps at least a pixel of the image.

    Args: Those of ``DeltaXYWHBBoxCoder``; only ``clip_border`` changes how boxes are decoded.
    """

    least_side = 1  # pixels of a clipped box

    def decode(
        self, bboxes: Tensor, pred_bboxes: Tensor, max_shape: Any = None, wh_ratio_clip: float = 16 / 1000
    ) -> Tensor:
        """Decodes boxes ``[N, 4]`` and deltas ``[N, 4 K]`` to boxes ``[N, 4 K]``; ``max_shape`` is (height, width)."""
        like = bboxes.new_tensor
        deltas = pred_bboxes.unflatten(-1, (-1, 4)) * like(self.stds) + like(self.means)
        sides = (bboxes[:, 2:] - bboxes[:, :2])[:, None]
        middle = bboxes[:, None, :2] + sides * (deltas[..., :2] + 0.5)
        half = sides * deltas[..., 2:].clamp(max=-math.log(wh_ratio_clip)).exp() / 2
        first, last = middle - half, middle + half
        if self.clip_border and max_shape is not None:
            size, least = like(max_shape[1::-1]), self.least_side
            first, last = first.clamp(size * 0, size - least), last.clamp(size * 0 + least, size)
        return torch.cat([first, last], -1).flatten(1)


@MODELS.register_module()
class EODRoIExtractor(SingleRoIExtractor):
    """Pools a region from its first to its last pixel; its level depends on its whole area.

    Args: Those of ``SingleRoIExtractor``; ``roi_layer`` needs ``aligned=False``.
    """

    def forward(self, feats: tuple[Tensor, ...], rois: Tensor, roi_scale_factor: float | None = None) -> Tensor:
        """Returns features ``[N, C, H, W]`` of RoIs ``[N, 5]`` (image and edges) from the maps of all levels."""
        return super().forward(feats, rois - rois.new_tensor(TO_EDGES), roi_scale_factor)

    def map_roi_levels(self, rois: Tensor, num_levels: int) -> Tensor:
        return super().map_roi_levels(rois + rois.new_tensor(TO_EDGES), num_levels)


@MODELS.register_module()
class EODCascadeRoIHead(CascadeRoIHead):
    """A cascade whose scores are the mean of the stages' probabilities; mmdet's are the softmax of their mean logits.

    Args: Those of ``CascadeRoIHead``.
    """

    def _bbox_forward(self, stage: int, x: tuple[Tensor, ...], rois: Tensor) -> dict[str, Tensor]:
        results = super()._bbox_forward(stage, x, rois)
        if not self.training:
            results['cls_score'] = results['cls_score'].softmax(-1)
        return results

    def _refine_roi(self, *args: Any, **kwargs: Any) -> tuple:
        # the last head applies softmax: to the logarithm, which gives the mean again
        rois, probabilities, boxes = super()._refine_roi(*args, **kwargs)
        return rois, [probability.log() for probability in probabilities], boxes
