"""Names of the version before this one, all of them: they warn, and the next version is without them."""

import functools
import importlib
import sys
import warnings
from collections.abc import Callable
from types import ModuleType
from typing import Any

# Module -> its public names of old, as they are called now. Two are no longer public, `building` and `reporting`.
_NAMES: dict[str, dict[str, str]] = {
    'icconv_mm.apis.errors': {
        'InputError': 'icconv_mm.errors.InputError',
        'building': 'icconv_mm.errors.building',
        'reporting': 'icconv_mm.utils.command_line.reporting',
    },
    'icconv_mm.apis.inference': {'FailedPicturesError': 'icconv_mm.apis.inference.FailedImagesError'},
    'icconv_mm.datasets.loading': {'find_pictures': 'icconv_mm.datasets.loading.find_images'},
    'icconv_mm.hooks': {
        'CheckpointMatchHook': 'icconv_mm.engine.CheckpointMatchHook',
        'InferenceFormHook': 'icconv_mm.engine.DeployHook',
        'ResumableRandomnessHook': 'icconv_mm.engine.ResumableRandomnessHook',
    },
    'icconv_mm.layers': {'PConv': 'icconv_mm.layers.PConvLayer'},
    'icconv_mm.optim': {'CPUAmpOptimWrapper': 'icconv_mm.engine.CPUAmpOptimWrapper'},
    'icconv_mm.tasks.pose': {
        'COCO_JOINT_ORDER': 'icconv_mm.tasks.pose.COCO_KEYPOINT_ORDER',
        'PackPyramidInputs': 'icconv_mm.tasks.pose.PackMultiScaleInputs',
        'PyramidDataPreprocessor': 'icconv_mm.tasks.pose.MultiScaleDataPreprocessor',
        'PyramidResize': 'icconv_mm.tasks.pose.MultiScaleResize',
    },
}

# Those of these modules that have gone.
_GONE = ('icconv_mm.apis.errors', 'icconv_mm.hooks', 'icconv_mm.optim')

# Module that has gone -> the folder that it is now.
_FOLDERS = {'icconv_mm.benchmark': 'tools/icconv_tools/benchmark', 'icconv_mm.apis.demo': 'tools/icconv_tools/demo'}

# Type of old in a config -> the type now; both in scope icconv_mm.
_TYPES = {
    'InferenceFormHook': 'DeployHook',
    'PackPyramidInputs': 'PackMultiScaleInputs',
    'PyramidDataPreprocessor': 'MultiScaleDataPreprocessor',
    'PyramidResize': 'MultiScaleResize',
}


def renamed(module: str) -> Callable[[str], Any]:
    """A ``__getattr__`` for ``module`` that finds its names of old, with a warning."""

    def __getattr__(name: str) -> Any:
        if new := _NAMES[module].get(name):
            _warn(f'{module}.{name}', new)
            home, _, attribute = new.rpartition('.')
            return getattr(importlib.import_module(home), attribute)
        raise AttributeError(f'module {module!r} has no attribute {name!r}')

    return __getattr__


def register_old_types(registry: Any, **built: Callable) -> None:
    """Let a registry find types by their names of old, with a warning.

    Args:
        registry: The registry.
        built: What each type builds, by its name of old.
    """
    for name, build in built.items():
        registry.register_module(name=name, module=_old_type(name, build))


def type_names(name: str) -> tuple[str, ...]:
    """What a config may call a type: its name, and its names of old."""
    return name, *(old for old, new in _TYPES.items() if new == name)


def _old_type(name: str, build: Callable) -> Callable:
    @functools.wraps(build, updated=())
    def build_by_old_name(*args, **options) -> Any:
        _warn(f'icconv_mm.{name}', f'icconv_mm.{_TYPES[name]}')
        return build(*args, **options)

    return build_by_old_name


def renamed_argument(old: str, new: str) -> Callable[[Callable], Callable]:
    """A decorator: lets a function or an ``__init__`` take its argument ``new`` by its name of old, with a warning."""

    def decorate(function: Callable) -> Callable:
        name = function.__qualname__.removesuffix('.__init__')

        @functools.wraps(function)
        def take_old_name(*args: Any, **options: Any) -> Any:
            if old in options:
                if new in options:
                    raise TypeError(f'{name}: {old} is {new} now, and both are given')
                _warn(f'{name}: {old}', new)
                options[new] = options.pop(old)
            return function(*args, **options)

        return take_old_name

    return decorate


def _warn(old: str, new: str) -> None:
    """Warn whoever called the caller."""
    warnings.warn(f'{old} is {new} now; the next version is without the old name', DeprecationWarning, stacklevel=3)


def _left(module: str, folder: str) -> Callable[[str], Any]:
    """A ``__getattr__`` for a module that is a ``folder`` beside the package now."""

    def __getattr__(name: str) -> Any:
        if name.startswith('__'):  # asked of every module by inspect and its kin
            raise AttributeError(name)
        raise ImportError(f'{module}.{name}: it is in {folder} now, beside the package')

    return __getattr__


def find_gone_modules() -> None:
    """Let ``import`` find the modules that have gone."""
    getters = {name: renamed(name) for name in _GONE}
    getters |= {name: _left(name, folder) for name, folder in _FOLDERS.items()}
    for name, getter in getters.items():
        module = sys.modules[name] = ModuleType(name)
        module.__getattr__ = getter
        parent, _, child = name.rpartition('.')
        if parent in sys.modules:
            setattr(sys.modules[parent], child, module)
