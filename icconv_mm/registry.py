"""Registries of scope ``icconv_mm``, and the folder of ``icconv_mm.tasks`` for each task library.

Each registry is a child of mmengine's root registry of the same kind, so that a config of mmdet, mmseg, mmpose or
mmpretrain finds a module as ``type='icconv_mm.Name'`` whatever its default scope. A registry imports the modules of its
``locations`` at its first lookup, not at ``import icconv_mm``: importing the package stays cheap, and a task library is
imported only if a config needs it.
"""

import importlib
import sys
import warnings
from contextlib import suppress
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

from icconv_mm import versions

# before the import below, whose error for an unsupported library is less helpful; mmcv may be missing
_MMCV = versions.is_installed('mmcv')
versions.check_versions(tuple(name for name in versions.FOUNDATION if _MMCV or name != 'mmcv'))

from mmengine import registry as root  # noqa: E402
from mmengine.config.utils import MODULE2PACKAGE  # noqa: E402

SCOPE = 'icconv_mm'
# Import name of a task library, which is also the default_scope of its configs -> its folder of icconv_mm.tasks.
LIBRARIES = {
    'mmdet': 'detection',
    'mmseg': 'semantic',
    'mmpose': 'pose',
    'mmpretrain': 'classification',
}


def import_task(library: str) -> None:
    """Imports the task folder of a library, one of :data:`LIBRARIES`, which registers its classes."""
    try:
        importlib.import_module(f'icconv_mm.tasks.{LIBRARIES[library]}')
    except (ImportError, TypeError) as error:
        versions.explain_import(error, library)
        raise


class _LazyRegistry(root.Registry):
    """Registry that also imports task folders: at a lookup, those of the config's library and of others in use.

    A library is in use if its models are imported: mmseg imports mmdet itself for a few models and does without it. For
    a type that is not found, the task folders of all imported libraries are imported.
    """

    def import_from_location(self) -> None:
        super().import_from_location()
        scope = root.DefaultScope.get_current_instance()
        for library in LIBRARIES:
            if f'{library}.models' in sys.modules or (scope and scope.scope_name == library):
                import_task(library)

    def get(self, key: str) -> type | None:
        cls = super().get(key)
        if cls is None:
            for library in LIBRARIES:
                if sys.modules.get(library) is not None:  # None bars an import
                    import_task(library)
            cls = super().get(key)
        return cls


def _child(parent: root.Registry, *locations: str) -> root.Registry:
    return _LazyRegistry(parent.name, parent=parent, scope=SCOPE, locations=list(locations))


_MULTITASK = ('icconv_mm.tasks.multitask',) if _MMCV else ()  # its transforms derive from mmcv's

MODELS = _child(root.MODELS, 'icconv_mm.backbones', 'icconv_mm.necks', *_MULTITASK)
DATASETS = _child(root.DATASETS, *_MULTITASK)
TRANSFORMS = _child(root.TRANSFORMS, 'icconv_mm.datasets.loading', *_MULTITASK)
TASK_UTILS = _child(root.TASK_UTILS)
METRICS = _child(root.METRICS, *_MULTITASK)
HOOKS = _child(
    root.HOOKS,
    *(f'icconv_mm.engine.{name}' for name in ('deploy_hook', 'pipelines', 'randomness', 'saving')),
    'icconv_mm.app.training.hooks.checkpoint_checks',
)
OPTIMIZERS = _child(root.OPTIMIZERS, 'icconv_mm.engine.optimizers')
OPTIM_WRAPPERS = _child(root.OPTIM_WRAPPERS, 'icconv_mm.engine.amp')
VISUALIZERS = _child(root.VISUALIZERS, *(('icconv_mm.app.adapters.multitask',) if _MMCV else ()))


# Modules that pages or configs may name by their former path -> where they are; until version 0.2.
FORMER_NAMES = {
    **{f'icconv_mm.annotations.{name}': f'icconv_mm.datasets.{name}' for name in ('checks', 'loading')},
    **{f'icconv_mm.annotations.{name}': f'icconv_mm.app.annotations.{name}' for name in ('dataset', 'door')},
    **{
        f'icconv_mm.annotations.writers.{name}': f'icconv_mm.app.annotations.writers.{name}'
        for name in ('coco', 'cvat', 'label_studio', 'yolo')
    },
    'icconv_mm.export.operators': 'icconv_mm.app.export.operators',
    'icconv_mm.hooks.checkpoint_checks': 'icconv_mm.app.training.hooks.checkpoint_checks',
    **{f'icconv_mm.hooks.{name}': f'icconv_mm.engine.{name}' for name in ('pipelines', 'randomness', 'saving')},
    **{f'icconv_mm.runner.{name}': f'icconv_mm.engine.{name}' for name in ('amp', 'optimizers')},
    'icconv_mm.runner.model': 'icconv_mm.app.prediction.model',
    'icconv_mm.runner.predict': 'icconv_mm.app.prediction.image_run',
    **{f'icconv_mm.runner.{name}': f'icconv_mm.app.runs.{name}' for name in ('explain_errors', 'prepare')},
    'icconv_mm.runner.config': 'icconv_mm.apis',
    'icconv_mm.tasks.adapter': 'icconv_mm.app.adapters.base',
}
_FORMER_PACKAGES = {name.rpartition('.')[0] for name in FORMER_NAMES}


class _FormerNames(MetaPathFinder, Loader):
    """Imports a module by its former name, with a DeprecationWarning."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        is_package = name in _FORMER_PACKAGES
        return ModuleSpec(name, self, is_package=is_package) if is_package or name in FORMER_NAMES else None

    def create_module(self, spec: ModuleSpec) -> None:
        """Leaves it to the import system."""

    def exec_module(self, module: ModuleType) -> None:
        if new := FORMER_NAMES.get(module.__name__):
            warnings.warn(f'{module.__name__} is {new} now', DeprecationWarning, stacklevel=2)
            sys.modules[module.__name__] = importlib.import_module(new)


def keep_former_names() -> None:
    """Lets the modules of :data:`FORMER_NAMES` be imported by their former names."""
    if not any(isinstance(finder, _FormerNames) for finder in sys.meta_path):
        sys.meta_path.append(_FormerNames())


def scoped(cls: type) -> str:
    """Returns the ``type`` by which a config of any library names a class of these registries."""
    return f'{SCOPE}.{cls.__name__}'


def library_network(name: str) -> type | None:
    """Returns the class of a name such as 'ResNet' in the library whose config is under construction.

    That is the class in the registry of the default scope, or in that of the first library that the scope's package
    imports: the backbones of mmrotate's configs are mmdet's. None without a default scope or such a class.
    """
    scope = root.DefaultScope.get_current_instance()
    package = scope and sys.modules.get(scope.scope_name)
    used = [library for library in LIBRARIES if isinstance(getattr(package, library, None), ModuleType)]
    for library in [scope.scope_name, *used] if scope and scope.scope_name != SCOPE else []:
        with suppress(RuntimeError), root.MODELS.switch_scope_and_registry(library) as registry:
            if cls := registry.get(name):
                return cls
    return None


def find_forks() -> None:
    """Lets configs inherit from ``mmseg::`` and the like if the library is a fork.

    mmengine looks for the original distribution, which a fork does not provide; it finds a fork's module itself.
    """
    for name in MODULE2PACKAGE.keys() & versions.SUPPORTED.keys():
        version = versions.installed(name)
        if version and version[0] not in (name, MODULE2PACKAGE[name]):
            MODULE2PACKAGE[name] = name
