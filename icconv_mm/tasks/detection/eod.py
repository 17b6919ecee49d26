"""What differs from mmdet 3 in detectors of EOD (https://github.com/ModelTC/EOD, before: POD), such as IC-Conv's own.

EOD names a box by its first and last pixel, with width x2 - x1 + 1. Here boxes are given by their edges, (x1, y1,
x2 + 1, y2 + 1): the same box, for which mmdet's samplers, NMS, levels and COCO's metric compute what EOD computes.
"""

import math
from typing import Any

import torch
from mmdet.models.roi_heads import CascadeRoIHead, SingleRoIExtractor
from mmdet.models.task_modules.coders import DeltaXYWHBBoxCoder
from mmdet.models.task_modules.prior_generators import AnchorGenerator
from torch import Tensor

from icconv_mm.registry import MODELS, TASK_UTILS

TO_EDGES = (0, 0, 0, 1, 1)  # of RoIs: image, x1, y1, x2, y2


@TASK_UTILS.register_module()
class EODAnchorGenerator(AnchorGenerator):
    """Anchors whose width and height are rounded before they are scaled, as in py-faster-rcnn: 48x24 at stride 4, not
    45.3x22.6, so that ratios differ by level.

    Args: Those of ``AnchorGenerator``; ``center_offset`` is 0.5 unless given.
    """

    def __init__(self, *args: Any, center_offset: float = 0.5, **kwargs: Any):
        super().__init__(*args, center_offset=center_offset, **kwargs)

    def gen_single_level_base_anchors(
        self, base_size: int, scales: Tensor, ratios: Tensor, center: tuple[float, float] | None = None
    ) -> Tensor:
        """Base anchors ``[ratios * scales, 4]`` of a level as (left, top, right, bottom) edges in pixels."""
        widths = (base_size**2 / ratios).sqrt().round()
        sides = torch.stack([widths, (widths * ratios).round()], -1)
        sides = (sides[:, None] * scales[:, None]).flatten(0, 1)
        middle = sides.new_tensor(center or [self.center_offset * base_size] * 2)
        return torch.cat([middle - sides / 2, middle + sides / 2], -1)


@TASK_UTILS.register_module()
class EODBBoxCoder(DeltaXYWHBBoxCoder):
    """mmdet's coder, except that a box may shrink to nothing and that a clipped one keeps a pixel of the image.

    Args: Those of ``DeltaXYWHBBoxCoder``; ``clip_border`` alone changes how boxes are decoded.
    """

    least_side = 1  # pixels of a clipped box

    def decode(
        self, bboxes: Tensor, pred_bboxes: Tensor, max_shape: Any = None, wh_ratio_clip: float = 16 / 1000
    ) -> Tensor:
        """Boxes ``[N, 4 K]`` from boxes ``[N, 4]`` and deltas ``[N, 4 K]``; ``max_shape`` is (height, width)."""
        like = bboxes.new_tensor
        deltas = pred_bboxes.unflatten(-1, (-1, 4)) * like(self.stds) + like(self.means)
        sides = (bboxes[:, 2:] - bboxes[:, :2])[:, None]
        middle = bboxes[:, None, :2] + sides * (deltas[..., :2] + 0.5)
        half = sides * deltas[..., 2:].clamp(max=-math.log(wh_ratio_clip)).exp() / 2
        first, last = middle - half, middle + half
        if self.clip_border and max_shape is not None:
            size = like(max_shape[1::-1])
            least = self.least_side
            first, last = first.clamp(size * 0, size - least), last.clamp(size * 0 + least, size)
        return torch.cat([first, last], -1).flatten(1)


@MODELS.register_module()
class EODRoIExtractor(SingleRoIExtractor):
    """Pools a region from its first to its last pixel; its level is that of its whole area.

    Args: Those of ``SingleRoIExtractor``; ``roi_layer`` needs ``aligned=False``.
    """

    def forward(self, feats: tuple[Tensor, ...], rois: Tensor, roi_scale_factor: float | None = None) -> Tensor:
        """Features ``[N, C, H, W]`` of RoIs ``[N, 5]`` (image and edges) on the maps of all levels."""
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
        # the last head takes the softmax of these: of the logarithm it is the mean again
        rois, probabilities, boxes = super()._refine_roi(*args, **kwargs)
        return rois, [each.log() for each in probabilities], boxes
