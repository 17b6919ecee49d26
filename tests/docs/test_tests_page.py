"""tests/README.md: the folders of tests are those of the package and of tools; the page lists what differs."""

import re
from fnmatch import fnmatchcase

import pytest
from pages import REPO, tables

TESTS = REPO / 'tests'


def folders(root) -> set[str]:
    """Folders with Python files in them, as paths below ``root``."""
    return {str(path.parent.relative_to(root)) for path in root.rglob('*.py')} - {'.'}


@pytest.fixture
def listed() -> tuple[list, list]:
    """The rows of both tables: modules that are tested elsewhere, folders beside the mirror."""
    (_, *elsewhere), (_, *beside) = tables((TESTS / 'README.md').read_text())
    return elsewhere, beside


def test_folders_mirror_the_package_or_are_listed(listed):
    names = {re.match(r'`(\w+)`', cells[0]).group(1) for cells in listed[1]}
    assert {name for name in names if not (TESTS / name).is_dir()} == set()
    mirrored = folders(REPO / 'icconv_mm') | {'tools'} | {f'tools/{name}' for name in folders(REPO / 'tools')}
    assert {name for name in folders(TESTS) if name.split('/')[0] not in names} - mirrored == set()


def test_every_module_has_a_test_file_or_is_listed(listed):
    patterns = [pattern for cells in listed[0] for pattern in re.findall(r'`([\w/*]+)`', cells[0])]
    package = REPO / 'icconv_mm'
    modules = {path.relative_to(package).with_suffix('') for path in package.rglob('*.py')}
    modules = {path for path in modules if path.name != '__init__' and '.mim' not in path.parts}
    without = {str(path) for path in modules if not [*(TESTS / path.parent).glob(f'test_{path.name}*.py')]}
    assert {name for name in without if not any(fnmatchcase(name, pattern) for pattern in patterns)} == set()
    assert {pattern for pattern in patterns if not any(fnmatchcase(name, pattern) for name in without)} == set()
    named = [path for cells in listed[0] for path in re.findall(r'`(tests/[\w/.]+)`', cells[1])]
    assert named and [path for path in named if not (REPO / path).exists()] == []


def test_every_package_has_its_tests():
    packages = {name for name in folders(REPO / 'icconv_mm') if '/' not in name and name != '.mim'}
    assert {name for name in packages if not any((TESTS / name).rglob('test_*.py'))} == set()


def test_base_names_are_unique():
    """pytest imports a test file by its base name alone."""
    names = [path.name for path in TESTS.rglob('*.py') if path.name != 'conftest.py']
    assert sorted({name for name in names if names.count(name) > 1}) == []
