"""Backbones and necks of four papers for OpenMMLab 2.x: IC-Conv, SEPC, FPT and PyConv.

``custom_imports = dict(imports=['icconv_mm'], allow_failed_imports=False)`` registers each module under
``icconv_mm.Name``; a config's ``type='icconv_mm.Name'`` is ``icconv_mm.Name`` in Python as well.
Importing the package imports mmengine if it is installed, because the package extends its registries and its
checkpoint loading; otherwise it imports the standard library only. The rest is imported on first use: a subpackage at
its first access (PEP 562), a registered module at the first lookup in a registry, a task library (mmdet, mmseg, mmpose,
mmpretrain) when a config needs it. Without mmengine, torch alone is enough for operators, layers, patterns, search,
backbones, necks, ``deploy`` and the functions of ``models``.
"""

from icconv_mm.invocation import called_as
from icconv_mm_runtime import interrupts

if called_as() is not None:
    interrupts.await_interrupts()

import importlib
import sys
from typing import TYPE_CHECKING, Any

from icconv_mm import errors, versions
from icconv_mm._version import __version__
from icconv_mm_runtime import process

# The names of __getattr__ again: type checkers read imports and a literal __all__, and compute neither.
if TYPE_CHECKING:
    from icconv_mm import annotations, backbones, checkpoints, deployment, layers, models, necks, ops, patterns, tasks
    from icconv_mm import apis as apis
    from icconv_mm import registry as registry
    from icconv_mm.app.prediction.model import load
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
    from icconv_mm.layers import DeformConv2d, ICConv2d, ModulatedDeformConv2d, PyConv2d
    from icconv_mm.models import create_model, from_timm, list_models
    from icconv_mm.necks import FPT, SEPC, PConv, SequenceNeck, UnscathedPyramid


def extend_mmengine() -> None:
    """Extends mmengine if it is installed. Internal: importing does it, but for own commands."""
    versions.check_versions(('torch',))
    if versions.is_installed('mmengine'):
        from icconv_mm import registry
        from icconv_mm.checkpoints import loader

        loader.patch_with_runner()
        registry.find_forks()
        registry.keep_former_names()


def _is_own_command() -> bool:
    """Returns whether the process is a command that imports this module before it knows what it needs.

    The installer replaces libraries that the import would refuse, and uses no other module of the package. The command
    ``icconv`` extends mmengine when it has read its options: help and completion need no library.
    """
    is_installer = any(word.endswith('icconv_mm.install_openmmlab') for word in sys.orig_argv[1:])
    return is_installer or versions.OWN_COMMAND is not None


if versions.OWN_COMMAND is not None or versions.is_tool():
    process.begin_process()
if not _is_own_command():
    extend_mmengine()

_FUNCTIONS = {
    'create_model': 'models', 'deploy': 'deployment', 'from_timm': 'models', 'list_models': 'models',
    'load': 'app.prediction.model',
}  # fmt: skip
# The modules of all registered types. mmpose's registry of codecs finds AECodec here by its name: it has no root
# registry that this package could extend.
_TYPES = {
    'backbones': (
        'ICBackbone', 'ICResNeXt', 'ICResNet', 'ICResNetV1c', 'ICResNetV1d', 'PyConvBackbone', 'PyConvHGResNet',
        'PyConvResNet', 'ResNet',
    ),
    'layers': ('DeformConv2d', 'ICConv2d', 'ModulatedDeformConv2d', 'PyConv2d'),
    'necks': ('FPT', 'PConv', 'SEPC', 'SequenceNeck', 'UnscathedPyramid'),
    'datasets.loading': ('LoadImageFromFile',),
    'engine.amp': ('CPUAmpOptimWrapper',),
    'engine.optimizers': ('FusedAdamW',),
    'engine.deploy_hook': ('DeployHook',),
    'engine.pipelines': ('LastEpochsHook',),
    'engine.randomness': ('ResumableRandomnessHook',),
    'engine.saving': ('AtomicCheckpointHook', 'CopyAnnotationsHook'),
    'app.training.hooks.checkpoint_checks': ('CheckpointMatchHook',),
    'app.adapters.multitask': ('MultiTaskVisualizer',),
    'tasks.classification': ('DropoutLinearClsHead', 'MixedClassifier'),
    'tasks.detection': (
        'CPURoIExtractor', 'EODAnchorGenerator', 'EODBBoxCoder', 'EODCascadeRoIHead', 'EODRoIExtractor',
        'PANet2FCBBoxHead', 'PANetBBoxHead', 'PANetMaskHead', 'PixelAnchorGenerator', 'SplitFeatureHead',
    ),
    'tasks.multitask': (
        'LoadTaskAnnotations', 'MultiTaskConcatDataset', 'MultiTaskDataPreprocessor', 'MultiTaskDataset',
        'MultiTaskModel', 'PackTaskInputs', 'SharedFeatures', 'TaskMetric', 'WarpPeople',
    ),
    'tasks.pose': (
        'AECodec', 'AEHead', 'AEPoseEstimator', 'BottomupAffine', 'BottomupCocoDataset', 'BottomupCrowdPoseDataset',
        'FinestFPN', 'MaskedHeatmapLoss', 'MultiScaleDataPreprocessor', 'MultiScaleResize', 'PackMultiScaleInputs',
        'TagLoss',
    ),
    'tasks.semantic': (
        'ListedSegDataset', 'LoadSegMap', 'LovaszSoftmaxLoss', 'PyConvHead', 'RandomBlur', 'SegVisualizer',
        'WeightedCrossEntropyLoss',
    ),
}  # fmt: skip
_HOMES = _FUNCTIONS | {name: home for home, names in _TYPES.items() for name in names}
# `from icconv_mm import *` gives the names that torch alone is enough for: it imports every name of the list, and a
# missing library would make it fail. `dir` lists the others as well.
__all__ = [
    'FPT',
    'SEPC',
    'DeformConv2d',
    'ICBackbone',
    'ICConv2d',
    'ICResNeXt',
    'ICResNet',
    'ICResNetV1c',
    'ICResNetV1d',
    'ModulatedDeformConv2d',
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
    'load',
    'models',
    'necks',
    'ops',
    'patterns',
    'tasks',
    'versions',
]  # fmt: skip
# The subpackages in that list, and those that need further libraries.
_SUBPACKAGES = {*__all__} - _HOMES.keys() - {'__version__', 'errors', 'versions'} | {'apis', 'registry'}


def __getattr__(name: str) -> Any:
    if name not in _SUBPACKAGES and name not in _HOMES:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    try:
        if name in _SUBPACKAGES:
            return importlib.import_module(f'.{name}', __name__)
        return getattr(importlib.import_module(f'.{_HOMES[name]}', __name__), name)
    except (ImportError, AttributeError) as error:  # a library is probably missing, as an import statement would say
        raise AttributeError(f'{__name__}.{name} is unavailable: {error}') from error


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES, *_SUBPACKAGES})
