"""The registries of scope ``icconv_mm``.

Each is a child of mmengine's root registry of the same kind, so that a config of mmdet, mmseg, mmpose or mmpretrain
finds a module as ``type='icconv_mm.Name'`` whatever its default scope. The modules behind ``locations`` are imported
when a registry is first asked for a name, not by ``import icconv_mm``: importing the package stays cheap, and a task
library is loaded only when a config needs it.
"""

import importlib
import sys

from mmengine.config.utils import MODULE2PACKAGE
from mmengine.registry import DATASETS as _DATASETS
from mmengine.registry import HOOKS as _HOOKS
from mmengine.registry import METRICS as _METRICS
from mmengine.registry import MODELS as _MODELS
from mmengine.registry import OPTIM_WRAPPERS as _OPTIM_WRAPPERS
from mmengine.registry import TASK_UTILS as _TASK_UTILS
from mmengine.registry import TRANSFORMS as _TRANSFORMS
from mmengine.registry import VISUALIZERS as _VISUALIZERS
from mmengine.registry import Registry

from icconv_mm import versions
from icconv_mm.versions import LIBRARIES

SCOPE = 'icconv_mm'


class _LazyRegistry(Registry):
    """A registry that also knows the task folders of the libraries which have been imported by the time of a lookup."""

    def import_from_location(self) -> None:
        super().import_from_location()
        for task, library in LIBRARIES.items():
            if sys.modules.get(library) is not None:  # None bars an import
                importlib.import_module(f'icconv_mm.tasks.{task}')


def _child(parent: Registry, *locations: str) -> Registry:
    return _LazyRegistry(parent.name, parent=parent, scope=SCOPE, locations=list(locations))


MODELS = _child(_MODELS, 'icconv_mm.backbones', 'icconv_mm.necks')
DATASETS = _child(_DATASETS)
TRANSFORMS = _child(_TRANSFORMS, 'icconv_mm.datasets.loading')
TASK_UTILS = _child(_TASK_UTILS)
METRICS = _child(_METRICS)
HOOKS = _child(_HOOKS, 'icconv_mm.engine')
OPTIM_WRAPPERS = _child(_OPTIM_WRAPPERS, 'icconv_mm.engine')
VISUALIZERS = _child(_VISUALIZERS)


def find_forks() -> None:
    """Let configs inherit from ``mmseg::`` and the like where the library is a fork.

    mmengine looks for the distribution of the original, whose name a fork has not; a fork's module it finds itself.
    """
    for name in MODULE2PACKAGE.keys() & versions.SUPPORTED.keys():
        found = versions.installed(name)
        if found and found[0] not in (name, MODULE2PACKAGE[name]):
            MODULE2PACKAGE[name] = name
