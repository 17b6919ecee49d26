"""The two floors: former names of modules, and strings that name the application."""

import ast
import importlib
import sys
from pathlib import Path

import pytest

from icconv_mm import registry

PACKAGE = Path(registry.__file__).parent
FACES = {'__init__.py', '__main__.py', 'annotations.py', 'apis.py', 'install_openmmlab.py', 'registry.py'}


@pytest.mark.parametrize('name', registry.FORMER_NAMES)
def test_former_names_are_the_modules_of_today(name, monkeypatch):
    monkeypatch.delitem(sys.modules, name, raising=False)  # another test may have imported it
    with pytest.warns(DeprecationWarning, match=f'{name} is {registry.FORMER_NAMES[name]} now'):
        former = importlib.import_module(name)
    assert former is importlib.import_module(registry.FORMER_NAMES[name])


def test_a_name_that_never_was():
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module('icconv_mm.runner.nothing')
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module('icconv_mm.annotations.nothing')


def names_the_application(source: str) -> bool:
    return any(
        isinstance(node, ast.Constant) and isinstance(node.value, str) and 'icconv_mm.app' in node.value
        for node in ast.walk(ast.parse(source))
    )


def test_no_string_of_the_extension_names_the_application():
    assert names_the_application("import_module('icconv_mm.app.runs')")
    modules = [path for path in PACKAGE.rglob('*.py') if PACKAGE / 'app' not in path.parents]
    assert len(modules) > 90
    names = {path.name for path in modules if names_the_application(path.read_text())}
    assert names <= FACES
