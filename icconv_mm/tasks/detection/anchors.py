"""Anchors of detectors that were trained with mmdet 1.x."""

from mmdet.models.task_modules.prior_generators import LegacyAnchorGenerator
from torch import Tensor

from icconv_mm.registry import TASK_UTILS


@TASK_UTILS.register_module()
class PixelAnchorGenerator(LegacyAnchorGenerator):
    """The anchors of mmdet 1.x, given by their edges.

    mmdet 1.x names a box by its first and last pixel, (x1, y1, x2, y2) with width x2 - x1 + 1, and rounds anchors to
    whole pixels. Edges of the same boxes are (x1, y1, x2 + 1, y2 + 1). With them as anchors mmdet 3's own coders,
    assigners and NMS compute what mmdet 1.x computed, half pixels included: mmdet's ``LegacyDeltaXYWHBBoxCoder``, in
    contrast, leaves these out.

    Args: Those of ``LegacyAnchorGenerator``; ``center_offset`` is 0.5 unless given.
    """

    def __init__(self, *args, center_offset: float = 0.5, **kwargs):
        super().__init__(*args, center_offset=center_offset, **kwargs)

    def gen_single_level_base_anchors(self, *args, **kwargs) -> Tensor:
        """Base anchors [A, 4] as (left, top, right, bottom) edges in pixels."""
        anchors = super().gen_single_level_base_anchors(*args, **kwargs)
        anchors[:, 2:] += 1
        return anchors
