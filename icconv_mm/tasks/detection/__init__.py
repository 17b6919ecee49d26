"""Box detection and instance segmentation with mmdet 3."""

from icconv_mm import versions

__all__ = []

if versions.is_installed('mmdet'):
    from icconv_mm.tasks.detection.anchors import PixelAnchorGenerator
    from icconv_mm.tasks.detection.split_head import SplitFeatureHead

    __all__ += ['PixelAnchorGenerator', 'SplitFeatureHead']
