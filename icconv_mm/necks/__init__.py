"""Necks: modules between a backbone and the heads, registered for every task."""

from icconv_mm.necks.sepc import SEPC, PConv
from icconv_mm.necks.sequence import SequenceNeck

__all__ = ['SEPC', 'PConv', 'SequenceNeck']
