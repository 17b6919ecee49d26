"""Semantic segmentation with mmseg 1."""

from icconv_mm.tasks.semantic.data import (
    ListedSegDataset,
    LoadSegMap,
    RandomBlur,
    SegVisualizer,
    WeightedCrossEntropyLoss,
)
from icconv_mm.tasks.semantic.losses import LovaszSoftmaxLoss
from icconv_mm.tasks.semantic.pyconv_head import PyConvHead

__all__ = [
    'ListedSegDataset', 'LoadSegMap', 'LovaszSoftmaxLoss', 'PyConvHead', 'RandomBlur', 'SegVisualizer',
    'WeightedCrossEntropyLoss',
]  # fmt: skip
