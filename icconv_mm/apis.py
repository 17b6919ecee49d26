"""Functions behind the command-line tools: training, testing, inference, export, browsing and search."""

import importlib
from typing import Any

from icconv_mm import versions

versions.check_versions()  # the libraries that all tools need; the error names the missing ones

# Imported on first use: each imports mmengine's runner, which takes longer than the rest of the package.
_HOMES = {
    'Predictor': 'prediction.checkpoint',
    'browse': 'prediction.browse',
    'config_for': 'training.own_data',
    'convert_rf_next': 'training.search',
    'export': 'export.export',
    'infer': 'prediction.predict',
    'load_config': 'runs.begin',
    'load_run': 'runs.begin',
    'read_images': 'training.search',
    'search_checkpoint': 'training.search',
    'set_length': 'runs.lengths',
    'test': 'training.train',
    'train': 'training.train',
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f'icconv_mm.app.{_HOMES[name]}'), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
