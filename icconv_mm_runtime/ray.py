"""The public names of :mod:`icconv_mm_runtime.extra.ray`: predictions on many machines, by Ray Data."""

from icconv_mm_runtime.extra.ray import ROW_SCHEMA, predict

__all__ = ['ROW_SCHEMA', 'predict']
