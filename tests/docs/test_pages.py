"""What holds for every page: its links lead somewhere, what it names exists, and it can be read."""

import ast
import functools
import importlib
import re

import pytest
import torch
from pages import REPO, code_blocks, files, pages, section, tables

EVERY_PAGE = pytest.mark.parametrize('page', [str(page.relative_to(REPO)) for page in pages()])


def anchors(text: str) -> set[str]:
    """Names of the headings, as GitHub makes them."""
    headings = re.findall(r'^#+ (.+)$', text, re.MULTILINE)
    return {re.sub(r'[^\w\- ]', '', heading.lower()).replace(' ', '-') for heading in headings}


@EVERY_PAGE
def test_links_lead_somewhere(page):
    broken = []
    for target, anchor in re.findall(r'\]\(([^)#\s]*)(?:#([^)\s]+))?\)', (REPO / page).read_text()):
        if re.match(r'(https?|mailto):', target):
            continue
        path = (REPO / page).parent / target if target else REPO / page
        if not path.exists() or (anchor and anchor not in anchors(path.read_text())):
            broken.append(f'{target}#{anchor}')
    assert not broken


@EVERY_PAGE
def test_files_that_are_named_exist(page):
    text = (REPO / page).read_text()
    if page.startswith('docs/measurements/'):
        text = re.sub(r'^\| command \|.*', '', text, flags=re.MULTILINE)  # as it was run, wherever it is now
    named = re.findall(r'(?<![\w./$-])((?:configs|constraints|csrc|icconv_mm|scripts|tests|tools)/[\w./*-]+\w)', text)
    assert [name for name in named if not any(REPO.glob(name))] == []


def test_files_that_the_package_names_exist():
    """In comments, docstrings and messages."""
    missing = []
    for path in files('icconv_mm/*.py'):
        named = re.findall(r'(?<![\w./$-])((?:csrc|docs|tests|tools)/[\w./*-]+\w)', path.read_text())
        missing += [f'{path.relative_to(REPO)}: {name}' for name in named if not any(REPO.glob(name))]
    assert missing == []


@EVERY_PAGE
def test_names_of_the_package_exist(page):
    named = set(re.findall(r'(?<![\w./])icconv_mm((?:\.[A-Za-z_]\w*)+)', (REPO / page).read_text()))
    assert sorted(name for name in named if not exists(name.strip('.').split('.'))) == []


@functools.cache
def registered() -> set[str]:
    """Classes and functions that a config finds as ``icconv_mm.Name``; from the source, which needs no task library."""
    sources = (path.read_text() for path in (REPO / 'icconv_mm').rglob('*.py'))
    found = (re.findall(r"\.register_module\((?:name='(\w+)')?.*\)\n(?:class|def) (\w+)", text) for text in sources)
    return {given or own for names in found for given, own in names}


def exists(names: list[str]) -> bool:
    """Whether a dotted name is an attribute, a module, an operator of torch, or a class for configs."""
    value = importlib.import_module('icconv_mm')
    for i, name in enumerate(names):
        try:
            value = getattr(value, name)
        except AttributeError:
            try:
                value = importlib.import_module('.'.join(['icconv_mm', *names[: i + 1]]))
            except ImportError:
                return len(names) == 1 and (name in registered() or hasattr(torch.ops.icconv_mm, name))
    return True


@EVERY_PAGE
def test_options_of_the_tools_exist(page):
    text = (REPO / page).read_text().replace('\\\n', ' ')
    shared = ''.join(path.read_text() for path in (REPO / 'icconv_mm/apis').rglob('*.py'))
    missing = []
    for tool, options in re.findall(r'python (tools/\w+\.py)((?:[^\n`#;]|`\n)*)', text):
        source = (REPO / tool).read_text() + shared
        missing += [f'{tool} {option}' for option in re.findall(r'--[a-z][\w-]*', options) if option not in source]
    assert not missing


@EVERY_PAGE
def test_no_placeholder_is_left(page):
    assert not re.search(r'\b(TODO|FIXME|TBD|XXX)\b|(_TABLE|TESTED_\w+)\b', (REPO / page).read_text())


@EVERY_PAGE
def test_a_failed_import_is_never_silent(page):
    imports = re.findall(r'custom_imports = dict\((?:[^()]|\([^()]*\))*\)', (REPO / page).read_text())
    assert [each for each in imports if 'allow_failed_imports=False' not in each] == []


@EVERY_PAGE
def test_lines_of_pages_wrap(page):
    lines = enumerate((REPO / page).read_text().splitlines(), start=1)
    assert [f'{page}:{n}' for n, line in lines if len(line) > 120 and not line.lstrip().startswith('|')] == []


def test_lines_of_other_files_wrap():
    """What ruff and clang-format do not look at."""
    found = files('*Makefile', '*.sh', '*.yml', '*.yaml')
    assert {'Makefile', 'setup_env.sh', 'metafile.yml'} <= {path.name for path in found}
    lines = [(path, *each) for path in found for each in enumerate(path.read_text().splitlines(), start=1)]
    assert [f'{path.relative_to(REPO)}:{n}' for path, n, line in lines if len(line) > 120] == []


@EVERY_PAGE
def test_python_blocks_parse(page):
    for block in code_blocks(page):
        ast.parse(block, page)


def test_guides_and_reference_have_no_measured_figures():
    """What was measured stands in docs/measurements; guides and reference link it.

    The results of evidence.md are held to the raw files by test_measurement_pages.py.
    """
    pages = {page.name: page.read_text() for page in (REPO / 'docs').glob('*.md') if page.name != 'evidence.md'}
    assert [name for name, text in pages.items() if re.search(r'\*\*measured\*\*|^measured ', text, re.M | re.I)] == []


def test_the_index_lists_every_page_once():
    """Every page of docs is a guide, reference or a record, and the index says which."""
    listed = {}
    for kind in ('Guides', 'Reference', 'Measurements'):
        for _, *rows in tables(section('docs/README.md', kind)):
            for cells in rows:
                listed.setdefault(re.match(r'\[(.+)\]\(\1\)', cells[0]).group(1), []).append(kind)
    pages = {page.name for page in (REPO / 'docs').glob('*.md')} - {'README.md', 'index.md'}  # index: of the site
    assert sorted(listed) == sorted(pages)
    assert {len(kinds) for kinds in listed.values()} == {1}


def test_the_site_lists_the_pages_as_the_index_does():
    """Under the same titles, in the same order."""
    site = (REPO / 'docs/index.md').read_text()
    for kind in ('Guides', 'Reference'):
        (contents,) = re.findall(rf':caption: {kind}\n:titlesonly:\n\n(.*?)```', site, re.S)
        ((_, *rows),) = tables(section('docs/README.md', kind))
        assert [f'[{name}.md]({name}.md)' for name in contents.split()] == [cells[0] for cells in rows]


@EVERY_PAGE
def test_checkpoints_that_are_named_are_written(page):
    """``iter_N.pth`` is the last one of a training that the page runs."""
    Config = pytest.importorskip('mmengine').Config
    text = (REPO / page).read_text()
    named = {int(number) for number in re.findall(r'/iter_(\d+)\.pth', text)}
    recipes = {path for path in re.findall(r'configs/\w+/[\w.-]+_miniature\.py', text) if named and '*' not in path}
    last = {Config.fromfile(REPO / path).train_cfg.max_iters for path in recipes}
    assert named <= last


@pytest.mark.parametrize('folder', ['tools', 'scripts'])
def test_tools_and_scripts_are_listed(folder):
    listed = set(re.findall(r'\[([\w.]+)\]\(\1\)', (REPO / folder / 'README.md').read_text()))
    files = {path.name for path in (REPO / folder).iterdir() if path.suffix in ('.py', '.sh')}
    packages = {path.parent.name for path in (REPO / folder).glob('*/__init__.py')}
    assert listed == files | packages


def test_the_install_page_has_every_mode_of_the_build():
    (modes,) = re.findall(r'^MODES = \((.+)\)$', (REPO / 'setup.py').read_text(), re.MULTILINE)
    table = (REPO / 'docs/install.md').read_text().partition('| `ICCONV_MM_EXT=` |')[2].partition('\n\n')[0]
    assert re.findall(r'^\| `(\w+)`', table, re.MULTILINE) == re.findall(r"'(\w+)'", modes)
