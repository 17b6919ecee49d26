"""Semantic segmentation with mmseg 1."""
