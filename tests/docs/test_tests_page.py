"""tests/README.md: the folders of tests are those of the package and of tools; the page lists the others."""

import re

from pages import REPO, tables

TESTS = REPO / 'tests'


def folders(root) -> set[str]:
    """Folders with Python files in them, as paths below ``root``."""
    return {str(path.parent.relative_to(root)) for path in root.rglob('*.py')} - {'.'}


def test_folders_mirror_the_package_or_are_listed():
    ((_, *rows),) = tables((TESTS / 'README.md').read_text())
    listed = {re.match(r'`(\w+)`', cells[0]).group(1) for cells in rows}
    assert {name for name in listed if not (TESTS / name).is_dir()} == set()
    mirrored = folders(REPO / 'icconv_mm') | {'tools'} | {f'tools/{name}' for name in folders(REPO / 'tools')}
    assert {name for name in folders(TESTS) if name.split('/')[0] not in listed} - mirrored == set()


def test_every_package_has_its_tests():
    packages = {name for name in folders(REPO / 'icconv_mm') if '/' not in name}
    assert {name for name in packages if not any((TESTS / name).rglob('test_*.py'))} == set()


def test_base_names_are_unique():
    """pytest imports a test file by its base name alone."""
    names = [path.name for path in TESTS.rglob('*.py') if path.name != 'conftest.py']
    assert sorted({name for name in names if names.count(name) > 1}) == []
