"""Semantic segmentation with mmseg 1."""

from icconv_mm.layers.memory_format import needs_contiguous_maps
from icconv_mm.tasks.segmentation.pyconv_head import PyConvHead
from icconv_mm.tasks.segmentation.visualizer import SegVisualizer

__all__ = ['PyConvHead', 'SegVisualizer']

needs_contiguous_maps('mmseg.models.decode_heads.dm_head')  # DMNet asks for views of the maps
