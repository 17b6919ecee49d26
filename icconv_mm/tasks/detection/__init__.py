"""Box detection and instance segmentation with mmdet 3."""

from icconv_mm._deprecated import renamed
from icconv_mm.tasks.detection.anchors import PixelAnchorGenerator
from icconv_mm.tasks.detection.split_head import SplitFeatureHead

__all__ = ['PixelAnchorGenerator', 'SplitFeatureHead']

__getattr__ = renamed(__name__)
