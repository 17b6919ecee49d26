"""Dilation patterns: the type, the files, the names."""

from icconv_mm.patterns.alignment import align
from icconv_mm.patterns.download import PUBLISHED, DownloadError, cache_folder, download_patterns
from icconv_mm.patterns.load import geometric_pattern, load_pattern, read_patterns, write_patterns
from icconv_mm.patterns.pattern import DilationPattern, Run
from icconv_mm.patterns.supernet import LayerFilter

__all__ = [
    'PUBLISHED',
    'DilationPattern',
    'DownloadError',
    'LayerFilter',
    'Run',
    'align',
    'cache_folder',
    'download_patterns',
    'geometric_pattern',
    'load_pattern',
    'read_patterns',
    'write_patterns',
]
