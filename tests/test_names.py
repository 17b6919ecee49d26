"""Names of the package itself: what a config calls ``icconv_mm.Name`` is so called in Python, too."""

import subprocess
import sys

import pytest
from mmengine.registry import Registry

import icconv_mm
from icconv_mm import _deprecated, registry, versions
from icconv_mm.utils import task_folders


def test_every_registered_type_has_its_name():
    for library in task_folders.TASKS:
        pytest.importorskip(library)
        task_folders.import_task(library)
    from icconv_mm.tasks.pose.registry import KEYPOINT_CODECS

    ours = [each for each in vars(registry).values() if isinstance(each, Registry) and each.scope == registry.SCOPE]
    found = {}
    for each in [*ours, KEYPOINT_CODECS]:
        each.import_from_location()
        found |= each.module_dict
    found = {name: kind for name, kind in found.items() if name not in _deprecated._TYPES}
    assert {name: getattr(icconv_mm, name) for name in found} == found
    assert sorted(found) == sorted(name for names in icconv_mm._TYPES.values() for name in names)
    assert found.keys() <= set(dir(icconv_mm))


def test_star_import_has_what_torch_alone_has():
    code = 'from icconv_mm import *; print(ICResNet, create_model, ops)'
    subprocess.run([sys.executable, '-c', code], check=True, capture_output=True)
    others = set(icconv_mm._HOMES) | set(icconv_mm._SUBPACKAGES)
    assert others - set(icconv_mm.__all__) > {'apis', 'MultiTaskModel'} and others <= set(dir(icconv_mm))


@pytest.mark.parametrize('name', ['ICResNet', 'MultiTaskModel', 'Nothing'])
def test_a_name_loads_no_library_but_its_own(name):
    code = f'import sys, icconv_mm; hasattr(icconv_mm, {name!r}); print(*sys.modules)'
    modules = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout.split()
    assert 'icconv_mm' in modules and not set(task_folders.TASKS) & set(modules)


def test_a_name_of_a_library_that_is_not_installed():
    barred = [library for library in task_folders.TASKS if versions.is_installed(library)]
    code = (
        f'import sys; sys.modules |= dict.fromkeys({barred})\n'
        'import icconv_mm\n'
        'print(hasattr(icconv_mm, "AEHead"), hasattr(icconv_mm, "TagLoss"))\n'
        'icconv_mm.PyConvHead\n'
    )
    run = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert run.stdout.split() == ['False', 'True']
    assert 'AttributeError: icconv_mm.PyConvHead is not to be had here: ' in run.stderr and 'mmseg' in run.stderr
