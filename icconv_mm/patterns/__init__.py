"""Dilation patterns: the type, the files, the names."""

from icconv_mm.patterns.download import PUBLISHED, DownloadError, cache_folder, download_patterns
from icconv_mm.patterns.files import read_patterns, write_patterns
from icconv_mm.patterns.pattern import DilationPattern, Run
from icconv_mm.patterns.selection import LayerFilter
from icconv_mm.patterns.zoo import geometric_pattern, load_pattern

__all__ = [
    'PUBLISHED',
    'DilationPattern',
    'DownloadError',
    'LayerFilter',
    'Run',
    'cache_folder',
    'download_patterns',
    'geometric_pattern',
    'load_pattern',
    'read_patterns',
    'write_patterns',
]
