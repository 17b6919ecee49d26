"""Backbones and necks of four papers for OpenMMLab 2.x: IC-Conv, SEPC, FPT and PyConv.

``custom_imports = dict(imports=['icconv_mm'], allow_failed_imports=False)`` makes each module an ``icconv_mm.Name``.
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
# where to find what has a name of its own here
_OBJECTS = {'deploy': 'deployment', 'ICBackbone': 'backbones', 'PyConvBackbone': 'backbones'}
_OBJECTS |= {'create_model': 'models', 'from_timm': 'models', 'list_models': 'models'}
_OBJECTS |= {'MultiTaskModel': 'tasks.multitask'}
# mmpose's registry of codecs looks here: it has no root that a registry of ours could extend
_OBJECTS |= {'AECodec': 'tasks.pose'}
__all__ = ['__version__', 'errors', 'versions', *_OBJECTS, *_SUBPACKAGES]


def _imported(name: str):
    if name in _SUBPACKAGES:
        return importlib.import_module(f'.{name}', __name__)
    if name in _OBJECTS:
        return getattr(importlib.import_module(f'.{_OBJECTS[name]}', __name__), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


__getattr__ = _deprecated.renamed(__name__, otherwise=_imported)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
