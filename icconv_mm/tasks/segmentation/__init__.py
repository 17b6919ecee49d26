"""Semantic segmentation with mmseg 1."""

from icconv_mm.tasks.segmentation.datasets import ListedSegDataset
from icconv_mm.tasks.segmentation.losses import WeightedCrossEntropyLoss
from icconv_mm.tasks.segmentation.pyconv_head import PyConvHead
from icconv_mm.tasks.segmentation.transforms import LoadLabelMap, RandomBlur
from icconv_mm.tasks.segmentation.visualizer import SegVisualizer

__all__ = [
    'ListedSegDataset',
    'LoadLabelMap',
    'PyConvHead',
    'RandomBlur',
    'SegVisualizer',
    'WeightedCrossEntropyLoss',
]
