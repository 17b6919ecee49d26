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

from icconv_mm import _deprecated, errors, versions
from icconv_mm._version import __version__


def _is_installer() -> bool:
    """Whether the command is ``python -m icconv_mm.install_openmmlab``, before whose module Python imports this one.

    It replaces libraries that are refused here, and uses nothing of the package.
    """
    return any(word.endswith('icconv_mm.install_openmmlab') for word in sys.orig_argv)


if not _is_installer():
    versions.check(('torch',))
    if versions.is_installed('mmengine'):
        from icconv_mm import registry
        from icconv_mm.checkpoints import safe

        safe.install_with_runner()
        registry.find_forks()
    _deprecated.find_gone_modules()

_SUBPACKAGES = (
    'apis',
    'backbones',
    'checkpoints',
    'datasets',
    'deployment',
    'engine',
    'layers',
    'models',
    'necks',
    'ops',
    'patterns',
    'registry',
    'tasks',
)
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
    'datasets.loading': ('LoadImageFromFile',),
    'engine': (
        'AtomicCheckpointHook', 'CPUAmpOptimWrapper', 'CheckpointMatchHook', 'DeployHook', 'ResumableRandomnessHook',
    ),
    'tasks.classification': ('DropoutLinearClsHead',),
    'tasks.detection': ('PixelAnchorGenerator', 'SplitFeatureHead'),
    'tasks.multitask': (
        'LoadTaskAnnotations', 'MultiTaskConcatDataset', 'MultiTaskDataPreprocessor', 'MultiTaskDataset',
        'MultiTaskModel', 'MultiTaskVisualizer', 'PackTaskInputs', 'SharedFeatures', 'TaskMetric', 'WarpPeople',
    ),
    'tasks.pose': (
        'AECodec', 'AEHead', 'AEPoseEstimator', 'BottomupAffine', 'BottomupCocoDataset', 'BottomupCrowdPoseDataset',
        'MaskedHeatmapLoss', 'MultiScaleDataPreprocessor', 'MultiScaleResize', 'PackMultiScaleInputs', 'TagLoss',
    ),
    'tasks.segmentation': ('PyConvHead', 'SegVisualizer'),
}  # fmt: skip
_HOMES = _FUNCTIONS | {name: home for home, names in _TYPES.items() for name in names}
# What `from icconv_mm import *` gives is what torch alone is enough for: it asks for every name, and one whose library
# is missing would end it. `dir` has the others as well.
_NEED_MMENGINE = ('apis', 'engine', 'registry')
__all__ = [
    '__version__',
    'errors',
    'versions',
    *_FUNCTIONS,
    *(name for home in ('backbones', 'layers', 'necks') for name in _TYPES[home]),
    *(name for name in _SUBPACKAGES if name not in _NEED_MMENGINE),
]


def __getattr__(name: str):
    if name not in _SUBPACKAGES and name not in _HOMES:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    try:
        if name in _SUBPACKAGES:
            return importlib.import_module(f'.{name}', __name__)
        return getattr(importlib.import_module(f'.{_HOMES[name]}', __name__), name)
    except (ImportError, AttributeError) as error:  # a library is missing, most likely, as an import statement says
        raise AttributeError(f'{__name__}.{name} is not to be had here: {error}') from error


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES, *_SUBPACKAGES})
