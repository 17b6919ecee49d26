"""Box detection and instance segmentation with mmdet 3."""

from icconv_mm.tasks.detection.heads import (
    EODAnchorGenerator,
    EODBBoxCoder,
    EODCascadeRoIHead,
    EODRoIExtractor,
    PANet2FCBBoxHead,
    PANetBBoxHead,
    PANetMaskHead,
    PixelAnchorGenerator,
    SplitFeatureHead,
)
from icconv_mm.tasks.detection.roi_extractor import CPURoIExtractor

__all__ = [
    'CPURoIExtractor', 'EODAnchorGenerator', 'EODBBoxCoder', 'EODCascadeRoIHead', 'EODRoIExtractor',
    'PANet2FCBBoxHead', 'PANetBBoxHead', 'PANetMaskHead', 'PixelAnchorGenerator', 'SplitFeatureHead',
]  # fmt: skip
