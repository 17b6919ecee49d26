"""Backbones and necks of four papers for OpenMMLab 2.x: IC-Conv, SEPC, FPT and PyConv.

``custom_imports = dict(imports=['icconv_mm'], allow_failed_imports=False)`` makes each module an ``icconv_mm.Name``.
What a config calls ``type='icconv_mm.Name'`` is ``icconv_mm.Name`` in Python as well.
Importing the package imports mmengine where that is installed, whose registries and loading of checkpoints the package
joins; else the standard library alone. The rest waits: a subpackage until it is first used (PEP 562), a registered
module until a registry is first asked for one, a task library (mmdet, mmseg, mmpose, mmpretrain) until a config needs
it. Without mmengine, torch alone is enough for operators, layers, patterns, search, backbones, necks without deformable
convolution, ``deploy`` and the functions of ``models``.
"""

import importlib
import sys
from typing import TYPE_CHECKING, Any

from icconv_mm import errors, versions
from icconv_mm._version import __version__

# What __getattr__ finds, once more: checkers of types read imports and a literal __all__, and compute neither.
if TYPE_CHECKING:
    from icconv_mm import annotations, backbones, checkpoints, deployment, layers, models, necks, ops, patterns, tasks
    from icconv_mm import apis as apis
    from icconv_mm import registry as registry
    from icconv_mm import runner as runner
    from icconv_mm.backbones import (
        ICBackbone,
        ICResNet,
        ICResNetV1c,
        ICResNetV1d,
        ICResNeXt,
        PyConvBackbone,
        PyConvHGResNet,
        PyConvResNet,
        ResNet,
    )
    from icconv_mm.deployment.deploy import deploy
    from icconv_mm.layers import ICConv2d, PyConv2d
    from icconv_mm.models import create_model, from_timm, list_models
    from icconv_mm.necks import FPT, SEPC, PConv, SequenceNeck, UnscathedPyramid


def _is_installer() -> bool:
    """Whether the command is ``python -m icconv_mm.install_openmmlab``, before whose module Python imports this one.

    It replaces libraries that are refused here, and uses nothing of the package.
    """
    return any(word.endswith('icconv_mm.install_openmmlab') for word in sys.orig_argv)


if not _is_installer():
    versions.check_versions(('torch',))
    if versions.is_installed('mmengine'):
        from icconv_mm import registry
        from icconv_mm.checkpoints import loader

        loader.patch_with_runner()
        registry.find_forks()

_FUNCTIONS = {'deploy': 'deployment', 'create_model': 'models', 'from_timm': 'models', 'list_models': 'models'}
# Where the registered types are, all of them. mmpose's registry of codecs finds AECodec by its name here: it has no
# root that a registry of ours could extend.
_TYPES = {
    'backbones': (
        'ICBackbone', 'ICResNeXt', 'ICResNet', 'ICResNetV1c', 'ICResNetV1d', 'PyConvBackbone', 'PyConvHGResNet',
        'PyConvResNet', 'ResNet',
    ),
    'layers': ('ICConv2d', 'PyConv2d'),
    'necks': ('FPT', 'PConv', 'SEPC', 'SequenceNeck', 'UnscathedPyramid'),
    'annotations.loading': ('LoadImageFromFile',),
    'runner.amp': ('CPUAmpOptimWrapper',),
    'hooks.checkpoint_checks': ('CheckpointMatchHook', 'DeployHook'),
    'hooks.randomness': ('ResumableRandomnessHook',),
    'hooks.saving': ('AtomicCheckpointHook', 'CopyAnnotationsHook'),
    'tasks.classification': ('DropoutLinearClsHead', 'MixedClassifier'),
    'tasks.detection': (
        'EODAnchorGenerator', 'EODBBoxCoder', 'EODCascadeRoIHead', 'EODRoIExtractor', 'PANet2FCBBoxHead',
        'PANetBBoxHead', 'PANetMaskHead', 'PixelAnchorGenerator', 'SplitFeatureHead',
    ),
    'tasks.multitask': (
        'LoadTaskAnnotations', 'MultiTaskConcatDataset', 'MultiTaskDataPreprocessor', 'MultiTaskDataset',
        'MultiTaskModel', 'MultiTaskVisualizer', 'PackTaskInputs', 'SharedFeatures', 'TaskMetric', 'WarpPeople',
    ),
    'tasks.pose': (
        'AECodec', 'AEHead', 'AEPoseEstimator', 'BottomupAffine', 'BottomupCocoDataset', 'BottomupCrowdPoseDataset',
        'FinestFPN', 'MaskedHeatmapLoss', 'MultiScaleDataPreprocessor', 'MultiScaleResize', 'PackMultiScaleInputs',
        'TagLoss',
    ),
    'tasks.semantic': (
        'ListedSegDataset', 'LoadSegMap', 'PyConvHead', 'RandomBlur', 'SegVisualizer', 'WeightedCrossEntropyLoss',
    ),
}  # fmt: skip
_HOMES = _FUNCTIONS | {name: home for home, names in _TYPES.items() for name in names}
# What `from icconv_mm import *` gives is what torch alone is enough for: it asks for every name, and one whose library
# is missing would end it. `dir` has the others as well.
__all__ = [
    'FPT',
    'SEPC',
    'ICBackbone',
    'ICConv2d',
    'ICResNeXt',
    'ICResNet',
    'ICResNetV1c',
    'ICResNetV1d',
    'PConv',
    'PyConv2d',
    'PyConvBackbone',
    'PyConvHGResNet',
    'PyConvResNet',
    'ResNet',
    'SequenceNeck',
    'UnscathedPyramid',
    '__version__',
    'annotations',
    'backbones',
    'checkpoints',
    'create_model',
    'deploy',
    'deployment',
    'errors',
    'from_timm',
    'layers',
    'list_models',
    'models',
    'necks',
    'ops',
    'patterns',
    'tasks',
    'versions',
]  # fmt: skip
# The subpackages in that list, and those that not everybody can import.
_SUBPACKAGES = {*__all__} - _HOMES.keys() - {'__version__', 'errors', 'versions'} | {'apis', 'registry', 'runner'}


def __getattr__(name: str) -> Any:
    if name not in _SUBPACKAGES and name not in _HOMES:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    try:
        if name in _SUBPACKAGES:
            return importlib.import_module(f'.{name}', __name__)
        return getattr(importlib.import_module(f'.{_HOMES[name]}', __name__), name)
    except (ImportError, AttributeError) as error:  # a library is missing, most likely, as an import statement says
        raise AttributeError(f'{__name__}.{name} is unavailable: {error}') from error


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES, *_SUBPACKAGES})
