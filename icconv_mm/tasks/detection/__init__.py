"""Box detection and instance segmentation with mmdet 3."""

from icconv_mm.tasks.detection.eod import EODAnchorGenerator, EODBBoxCoder, EODCascadeRoIHead, EODRoIExtractor
from icconv_mm.tasks.detection.heads import PixelAnchorGenerator, SplitFeatureHead
from icconv_mm.tasks.detection.panet_heads import PANet2FCBBoxHead, PANetBBoxHead, PANetMaskHead

__all__ = [
    'EODAnchorGenerator',
    'EODBBoxCoder',
    'EODCascadeRoIHead',
    'EODRoIExtractor',
    'PANet2FCBBoxHead',
    'PANetBBoxHead',
    'PANetMaskHead',
    'PixelAnchorGenerator',
    'SplitFeatureHead',
]
