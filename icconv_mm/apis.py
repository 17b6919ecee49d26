"""What the command-line tools do, as functions: training, tests, inference, export, browsing, and the search."""

import importlib
from typing import Any

from icconv_mm import versions

versions.check_versions()  # the libraries that all of them need; the error names what is missing

# Loaded on first use: each pulls in mmengine's runner, which takes longer to import than the rest of the package.
_HOMES = {
    'Predictor': 'predict',
    'browse': 'browse',
    'config_for': 'own_data',
    'convert_rf_next': 'search',
    'export': 'export',
    'infer': 'predict',
    'load_config': 'config',
    'load_run': 'config',
    'read_images': 'search',
    'search_checkpoint': 'search',
    'test': 'train',
    'train': 'train',
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f'icconv_mm.runner.{_HOMES[name]}'), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
