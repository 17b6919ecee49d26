"""Dilation patterns: the type, the files, the names."""

from icconv_mm.patterns.download import PUBLISHED, cache_folder
from icconv_mm.patterns.files import read_patterns, write_patterns
from icconv_mm.patterns.pattern import DilationPattern, Run
from icconv_mm.patterns.zoo import geometric_pattern, load_pattern

__all__ = [
    'PUBLISHED',
    'DilationPattern',
    'Run',
    'cache_folder',
    'geometric_pattern',
    'load_pattern',
    'read_patterns',
    'write_patterns',
]
