"""Bottom-up pose by associative embedding with mmpose 1: what it lacks for training and for multi-scale testing.

The functions on arrays and tensors do not need mmpose; the modules built on it are registered if it is installed.
"""

from icconv_mm import versions
from icconv_mm.tasks.pose.grouping import group_keypoints
from icconv_mm.tasks.pose.losses import MaskedHeatmapLoss, TagLoss, heatmap_loss, tag_loss
from icconv_mm_runtime.grouping import COCO_KEYPOINT_ORDER

__all__ = ['COCO_KEYPOINT_ORDER', 'MaskedHeatmapLoss', 'TagLoss', 'group_keypoints', 'heatmap_loss', 'tag_loss']

if versions.is_installed('mmpose'):
    from icconv_mm.tasks.pose.codec import AECodec
    from icconv_mm.tasks.pose.datasets import (
        BottomupAffine,
        BottomupCocoDataset,
        BottomupCrowdPoseDataset,
        MultiScaleDataPreprocessor,
        MultiScaleResize,
        PackMultiScaleInputs,
    )
    from icconv_mm.tasks.pose.estimator import AEHead, AEPoseEstimator, FinestFPN

    __all__ += [
        'AECodec', 'AEHead', 'AEPoseEstimator', 'BottomupAffine', 'BottomupCocoDataset', 'BottomupCrowdPoseDataset',
        'FinestFPN', 'MultiScaleDataPreprocessor', 'MultiScaleResize', 'PackMultiScaleInputs',
    ]  # fmt: skip
