"""Names of the version before this one: they warn, and the next version is without them."""

import importlib
import sys
import warnings
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

# Module that has gone -> its public names, as they are called now.
_MODULES: dict[str, dict[str, str]] = {
    'icconv_mm.hooks': {
        'CheckpointMatchHook': 'icconv_mm.engine.CheckpointMatchHook',
        'InferenceFormHook': 'icconv_mm.engine.DeployHook',
        'ResumableRandomnessHook': 'icconv_mm.engine.ResumableRandomnessHook',
    },
    'icconv_mm.optim': {'CPUAmpOptimWrapper': 'icconv_mm.engine.CPUAmpOptimWrapper'},
    'icconv_mm.apis.errors': {name: f'icconv_mm.errors.{name}' for name in ('InputError', 'building', 'reporting')},
    'icconv_mm.datasets.miniature_scales': {
        name: f'icconv_mm.datasets.miniature.scales.{name}' for name in ('CLASSES', 'MARK', 'ScalesOptions')
    },
}

# Module that has gone -> the folder that it is now.
_FOLDERS = {'icconv_mm.benchmark': 'tools/icconv_tools/benchmark', 'icconv_mm.apis.demo': 'tools/icconv_tools/demo'}


def warn_renamed(old: str, new: str) -> None:
    """Warn whoever called the caller that ``old`` is called ``new`` now."""
    warnings.warn(f'{old} is {new} now; the next version is without the old name', DeprecationWarning, stacklevel=3)


def renamed(module: str, names: Mapping[str, str]) -> Callable[[str], Any]:
    """A ``__getattr__`` for ``module`` that finds what ``names`` (old name -> full new name) say, with a warning."""

    def __getattr__(name: str) -> Any:
        if name not in names:
            raise AttributeError(f'module {module!r} has no attribute {name!r}')
        warn_renamed(f'{module}.{name}', names[name])
        home, _, new = names[name].rpartition('.')
        return getattr(importlib.import_module(home), new)

    return __getattr__


def _left(module: str, folder: str) -> Callable[[str], Any]:
    """A ``__getattr__`` for a module that is a ``folder`` beside the package now."""

    def __getattr__(name: str) -> Any:
        if name.startswith('__'):  # asked of every module by inspect and its kin
            raise AttributeError(name)
        raise ImportError(f'{module}.{name}: it is in {folder} now, beside the package')

    return __getattr__


def activate() -> None:
    """Let ``import`` find the modules that have gone."""
    getters = {name: renamed(name, names) for name, names in _MODULES.items()}
    getters |= {name: _left(name, folder) for name, folder in _FOLDERS.items()}
    for name, getter in getters.items():
        module = sys.modules[name] = ModuleType(name)
        module.__getattr__ = getter
        parent, _, child = name.rpartition('.')
        if parent in sys.modules:
            setattr(sys.modules[parent], child, module)
