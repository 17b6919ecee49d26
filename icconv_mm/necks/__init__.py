"""Necks: modules between a backbone and the heads, registered for every task."""

from icconv_mm.necks.fpt import FPT
from icconv_mm.necks.sepc import SEPC, LevelPairError, PConv
from icconv_mm.necks.unscathed_pyramid import SequenceNeck, UnscathedPyramid

__all__ = ['FPT', 'SEPC', 'LevelPairError', 'PConv', 'SequenceNeck', 'UnscathedPyramid']
