"""The registries of scope ``icconv_mm``.

Each is a child of mmengine's root registry of the same kind, so that a config of mmdet, mmseg, mmpose or mmpretrain
finds a module as ``type='icconv_mm.Name'`` whatever its default scope. The modules behind ``locations`` are imported
when a registry is first asked for a name, not by ``import icconv_mm``: importing the package stays cheap, and a task
library is loaded only when a config needs it.
"""

from mmengine.registry import DATASETS as _DATASETS
from mmengine.registry import HOOKS as _HOOKS
from mmengine.registry import METRICS as _METRICS
from mmengine.registry import MODELS as _MODELS
from mmengine.registry import OPTIM_WRAPPERS as _OPTIM_WRAPPERS
from mmengine.registry import TASK_UTILS as _TASK_UTILS
from mmengine.registry import TRANSFORMS as _TRANSFORMS
from mmengine.registry import VISUALIZERS as _VISUALIZERS
from mmengine.registry import Registry

SCOPE = 'icconv_mm'


class _LazyRegistry(Registry):
    """A registry that also notices a task library which was imported after the first lookup."""

    def import_from_location(self) -> None:
        super().import_from_location()
        from icconv_mm.tasks import import_loaded

        import_loaded()


def _child(parent: Registry, *locations: str) -> Registry:
    return _LazyRegistry(parent.name, parent=parent, scope=SCOPE, locations=list(locations))


MODELS = _child(_MODELS, 'icconv_mm.backbones', 'icconv_mm.necks', 'icconv_mm.tasks')
DATASETS = _child(_DATASETS, 'icconv_mm.datasets', 'icconv_mm.tasks')
TRANSFORMS = _child(_TRANSFORMS, 'icconv_mm.datasets', 'icconv_mm.tasks')
TASK_UTILS = _child(_TASK_UTILS, 'icconv_mm.tasks')
METRICS = _child(_METRICS, 'icconv_mm.tasks')
HOOKS = _child(_HOOKS, 'icconv_mm.engine', 'icconv_mm.tasks')
OPTIM_WRAPPERS = _child(_OPTIM_WRAPPERS, 'icconv_mm.engine')
VISUALIZERS = _child(_VISUALIZERS, 'icconv_mm.tasks')
