"""The registries of scope ``icconv_mm``, and which folder of ``icconv_mm.tasks`` belongs to which task library.

Each registry is a child of mmengine's root registry of the same kind, so that a config of mmdet, mmseg, mmpose or
mmpretrain finds a module as ``type='icconv_mm.Name'`` whatever its default scope. The modules behind ``locations`` are
imported when a registry is first asked for a name, not by ``import icconv_mm``: importing the package stays cheap, and
a task library is loaded only when a config needs it.
"""

import importlib
import sys

from icconv_mm import versions

# before the import below, which would fail on an unsupported library with a less helpful error; mmcv may be missing
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
# Libraries whose configs leave a backbone's out_indices out, as their own ResNets return the last map alone.
ONE_MAP = ('mmpose', 'mmpretrain')


def import_task(library: str) -> None:
    """Import the folder of the task of a library, one of :data:`LIBRARIES`, and so register its classes."""
    importlib.import_module(f'icconv_mm.tasks.{LIBRARIES[library]}')


class _LazyRegistry(root.Registry):
    """A registry that also knows the task folders of the libraries which have been imported by the time of a lookup."""

    def import_from_location(self) -> None:
        super().import_from_location()
        for library in LIBRARIES:
            if sys.modules.get(library) is not None:  # None bars an import
                import_task(library)


def _child(parent: root.Registry, *locations: str) -> root.Registry:
    return _LazyRegistry(parent.name, parent=parent, scope=SCOPE, locations=list(locations))


_MULTITASK = ('icconv_mm.tasks.multitask',) if _MMCV else ()  # its transforms derive from mmcv's

MODELS = _child(root.MODELS, 'icconv_mm.backbones', 'icconv_mm.necks', *_MULTITASK)
DATASETS = _child(root.DATASETS, *_MULTITASK)
TRANSFORMS = _child(root.TRANSFORMS, 'icconv_mm.annotations.loading', *_MULTITASK)
TASK_UTILS = _child(root.TASK_UTILS)
METRICS = _child(root.METRICS, *_MULTITASK)
HOOKS = _child(
    root.HOOKS,
    *(f'icconv_mm.hooks.{name}' for name in ('checkpoint_checks', 'randomness', 'saving')),
)
OPTIM_WRAPPERS = _child(root.OPTIM_WRAPPERS, 'icconv_mm.runner.amp')
VISUALIZERS = _child(root.VISUALIZERS, *_MULTITASK)


def scoped(cls: type) -> str:
    """The ``type`` by which a config of any library names a class that is registered here."""
    return f'{SCOPE}.{cls.__name__}'


def find_forks() -> None:
    """Let configs inherit from ``mmseg::`` and the like where the library is a fork.

    mmengine looks for the distribution of the original, whose name a fork has not; a fork's module it finds itself.
    """
    for name in MODULE2PACKAGE.keys() & versions.SUPPORTED.keys():
        found = versions.installed(name)
        if found and found[0] not in (name, MODULE2PACKAGE[name]):
            MODULE2PACKAGE[name] = name
