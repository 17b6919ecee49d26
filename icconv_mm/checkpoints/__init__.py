"""Checkpoints: safe reading, and conversion of the files that other repositories released."""

from icconv_mm.checkpoints.convert import (
    SOURCES,
    Conversion,
    RenameRule,
    UnmatchedKeysError,
    convert,
    convert_file,
    load_rules,
)
from icconv_mm.checkpoints.reading import CheckpointError, UnsafeCheckpointError, read, read_detectron
from icconv_mm.checkpoints.sources import detectron, ic_conv, mmpose, own, pyconv, sepc  # noqa: F401  (they register)

__all__ = [
    'SOURCES',
    'CheckpointError',
    'Conversion',
    'RenameRule',
    'UnmatchedKeysError',
    'UnsafeCheckpointError',
    'convert',
    'convert_file',
    'load_rules',
    'read',
    'read_detectron',
]
