"""Names of the package itself: what a config calls ``icconv_mm.Name`` is so called in Python, too."""

import ast
import importlib
import inspect
import subprocess
import sys
import textwrap
from collections import defaultdict
from pathlib import Path

import pytest
from mmengine.registry import Registry

import icconv_mm
import icconv_mm_runtime
from icconv_mm import registry, versions


def test_every_registered_type_has_its_name():
    for library in registry.LIBRARIES:
        pytest.importorskip(library)
        registry.import_task(library)
    from icconv_mm.tasks.pose.codec import KEYPOINT_CODECS

    ours = [value for value in vars(registry).values() if isinstance(value, Registry) and value.scope == registry.SCOPE]
    types = {}
    for table in [*ours, KEYPOINT_CODECS]:
        table.import_from_location()
        types |= table.module_dict
    assert {name: getattr(icconv_mm, name) for name in types} == types
    assert sorted(types) == sorted(name for names in icconv_mm._TYPES.values() for name in names)
    assert types.keys() <= set(dir(icconv_mm))


def test_star_import_has_what_torch_alone_has():
    code = 'from icconv_mm import *; print(ICResNet, create_model, ops)'
    subprocess.run([sys.executable, '-c', code], check=True, capture_output=True)
    others = set(icconv_mm._HOMES) | set(icconv_mm._SUBPACKAGES)
    assert others - set(icconv_mm.__all__) > {'apis', 'MultiTaskModel'} and others <= set(dir(icconv_mm))


@pytest.mark.parametrize('name', ['ICResNet', 'MultiTaskModel', 'Nothing'])
def test_a_name_loads_no_library_but_its_own(name):
    code = f'import sys, icconv_mm; hasattr(icconv_mm, {name!r}); print(*sys.modules)'
    modules = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout.split()
    assert 'icconv_mm' in modules and not set(registry.LIBRARIES) & set(modules)


def test_a_name_of_a_library_that_is_not_installed():
    barred = [library for library in registry.LIBRARIES if versions.is_installed(library)]
    code = (
        f'import sys; sys.modules |= dict.fromkeys({barred})\n'
        'import icconv_mm\n'
        'print(hasattr(icconv_mm, "AEHead"), hasattr(icconv_mm, "TagLoss"))\n'
        'icconv_mm.PyConvHead\n'
    )
    run = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert run.stdout.split() == ['False', 'True']
    assert 'AttributeError: icconv_mm.PyConvHead is unavailable: ' in run.stderr and 'mmseg' in run.stderr


def test_checkers_of_types_see_what_star_import_gives():
    """They read assignments and imports alone: neither ``__getattr__`` nor a computed ``__all__``."""
    (checked,) = (
        node for node in ast.parse(inspect.getsource(icconv_mm)).body
        if isinstance(node, ast.If) and getattr(node.test, 'id', '') == 'TYPE_CHECKING'
    )  # fmt: skip
    seen = {name.name: node.module for node in checked.body for name in node.names}
    assert seen.keys() == {*icconv_mm.__all__, 'apis', 'registry'} - {'__version__', 'errors', 'versions'}
    for name, module in seen.items():
        assert getattr(importlib.import_module(module), name) is getattr(icconv_mm, name)
    core = [name for home in ('backbones', 'layers', 'necks') for name in icconv_mm._TYPES[home]]
    assert {*core, *icconv_mm._FUNCTIONS, *icconv_mm._SUBPACKAGES} == seen.keys()
    assert 'Iterable' in str(inspect.signature(icconv_mm.patterns.DilationPattern))


# Names that each module of a kind has, as torchvision's operators and OpenMMLab's tasks do; and the two doors to
# files, annotations.read and checkpoints.read.
SHARED = {
    'Adapter',
    'add_arguments',
    'convolve',
    'forward',
    'grad_input',
    'grad_weight',
    'main',
    'read',
    'reference',
    'run',
}


def test_no_public_name_stands_in_two_modules():
    """One name for one thing: public functions, classes and constants, over both packages."""
    modules = defaultdict(list)
    for package in (icconv_mm, icconv_mm_runtime):
        for path in sorted(Path(package.__file__).parent.rglob('*.py')):
            for node in ast.parse(path.read_text()).body:
                for name in _names_of(node):
                    if not name.startswith('_') and name not in SHARED:
                        modules[name].append(path.name)
    assert {name: where for name, where in modules.items() if len(where) > 1} == {}


def _names_of(node):
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, 'target', None)]
    return [target.id for target in targets if isinstance(target, ast.Name)]


@pytest.mark.slow
def test_no_module_shadows_a_public_function():
    """Importing a submodule binds its name on the package, where a function of that name would be lost."""
    pytest.importorskip('mmdet')
    code = """
        import importlib, pkgutil, types, icconv_mm
        functions = {name: getattr(icconv_mm, name) for name in icconv_mm._FUNCTIONS}
        for module in pkgutil.walk_packages(icconv_mm.__path__, 'icconv_mm.'):
            importlib.import_module(module.name)
        for name, function in functions.items():
            assert isinstance(function, types.FunctionType) and getattr(icconv_mm, name) is function, name
        net = icconv_mm.deploy(icconv_mm.create_model('ic_resnet18', pattern='geometric_d4').eval())
        assert 'ic_resnet18' in icconv_mm.list_models() and net is not None
        assert not HAS_TIMM or icconv_mm.from_timm('resnet18', pattern='geometric_d4', pretrained=False) is not None
    """
    code = f'HAS_TIMM = {versions.is_installed("timm")}\n{textwrap.dedent(code)}'
    subprocess.run([sys.executable, '-c', code], check=True, capture_output=True, text=True)
