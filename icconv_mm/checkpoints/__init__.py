"""Checkpoints: safe loading, and conversion of files that other repositories released."""

from icconv_mm.checkpoints.conversion import SOURCES, Conversion, UnmatchedKeysError, convert
from icconv_mm.checkpoints.files import convert_file
from icconv_mm.checkpoints.rules import RenameRule, load_rules
from icconv_mm.checkpoints.safe import CheckpointError, UnsafeCheckpointError, load
from icconv_mm.checkpoints.sources import detectron, ic_conv, mmpose, pyconv, sepc  # noqa: F401  (they register)
from icconv_mm.checkpoints.sources.detectron_pickle import load_detectron

__all__ = [
    'SOURCES',
    'CheckpointError',
    'Conversion',
    'RenameRule',
    'UnmatchedKeysError',
    'UnsafeCheckpointError',
    'convert',
    'convert_file',
    'load',
    'load_detectron',
    'load_rules',
]
