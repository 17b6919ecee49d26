"""Necks."""

from icconv_mm.necks.fpt import FPT
from icconv_mm.necks.unscathed_pyramid import UnscathedPyramid

__all__ = ['FPT', 'UnscathedPyramid']
