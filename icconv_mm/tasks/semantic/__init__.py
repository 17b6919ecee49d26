"""Semantic segmentation with mmseg 1."""

from icconv_mm.tasks.semantic.datasets import ListedSegDataset
from icconv_mm.tasks.semantic.losses import WeightedCrossEntropyLoss
from icconv_mm.tasks.semantic.pyconv_head import PyConvHead
from icconv_mm.tasks.semantic.transforms import LoadSegMap, RandomBlur
from icconv_mm.tasks.semantic.visualizer import SegVisualizer

__all__ = [
    'ListedSegDataset',
    'LoadSegMap',
    'PyConvHead',
    'RandomBlur',
    'SegVisualizer',
    'WeightedCrossEntropyLoss',
]
