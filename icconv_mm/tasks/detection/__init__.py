"""Box detection and instance segmentation with mmdet 3."""

from icconv_mm.tasks.detection.anchors import PixelAnchorGenerator
from icconv_mm.tasks.detection.split_head import SplitFeatureHead

__all__ = ['PixelAnchorGenerator', 'SplitFeatureHead']
