"""The levels in CONTRIBUTING.md are those that lint-imports holds, and every module of the package has one."""

import re
import sys

import pytest

if sys.version_info < (3, 11):
    pytest.skip('tomllib comes with Python 3.11', allow_module_level=True)
import tomllib


@pytest.fixture
def contracts(repo):
    return tomllib.loads((repo / 'pyproject.toml').read_text())['tool']['importlinter']['contracts']


@pytest.fixture
def levels(contracts):
    """Sets of names, the lowest first."""
    (layers,) = (contract['layers'] for contract in contracts if contract.get('containers') == ['icconv_mm'])
    return [set(layer.split(' | ')) for layer in reversed(layers)]


def test_table_of_contributing(repo, levels):
    text = (repo / 'CONTRIBUTING.md').read_text()
    table = text.partition('| level, lowest first |')[2].partition('\n\n')[0]
    rows = re.findall(r'^\| (`.*?) \|', table, re.MULTILINE)
    assert [set(re.findall(r'`(\w+)`', row)) for row in rows] == levels


def test_every_module_has_one_level(repo, levels):
    package = repo / 'icconv_mm'
    modules = {path.stem for path in package.glob('*.py')} | {
        path.parent.name for path in package.glob('*/__init__.py')
    }
    assert sorted(name for level in levels for name in level) == sorted(modules - {'__init__'})


def test_no_exceptions_and_no_task_library_elsewhere(contracts, levels):
    assert not any('ignore_imports' in contract for contract in contracts)
    (libraries,) = (contract for contract in contracts if 'mmdet' in contract.get('forbidden_modules', ()))
    sources = {name.removeprefix('icconv_mm.') for name in libraries['source_modules']}
    assert sources == set().union(*levels) - {'tasks'} | {
        'tasks.base', 'tasks.libraries', 'tasks.multitask', 'tasks.select',
    }  # fmt: skip


def test_contracts_reach_the_packages_of_tools(repo):
    linter = tomllib.loads((repo / 'pyproject.toml').read_text())['tool']['importlinter']
    roots = {path.parent.name for path in (repo / 'tools').glob('*/__init__.py')}
    assert sorted(linter['root_packages']) == sorted({'icconv_mm', *roots})
    behind = {f'icconv_tools.{name.stem}' for name in (repo / 'tools/icconv_tools').iterdir() if name.stem[0] != '_'}
    (layers,) = (each['layers'] for each in linter['contracts'] if 'layers' in each and 'containers' not in each)
    assert sorted(name for layer in layers for name in layer.split(' | ')) == sorted({'icconv_mm', *behind})
    assert layers[-1] == 'icconv_mm'
