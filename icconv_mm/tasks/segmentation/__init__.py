"""Semantic segmentation with mmseg 1."""

from icconv_mm.tasks.segmentation.pyconv_head import PyConvHead

__all__ = ['PyConvHead']
