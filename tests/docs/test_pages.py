"""What holds for every page: its links lead somewhere, what it names exists, and it can be read."""

import functools
import importlib
import inspect
import re

import pytest
import torch
from pages import REPO, pages

from icconv_mm.app.commands import COMMANDS

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


def commands_of_today(page: str) -> str:
    """The text of a page without the command of a measurement, which is as it was run."""
    return re.sub(r'^\| command \|.*', '', (REPO / page).read_text(), flags=re.MULTILINE)


@EVERY_PAGE
def test_files_that_are_named_exist(page):
    paths = r'(?<![\w./$-])((?:configs|constraints|csrc|icconv_mm|tests|tools)/[\w./*-]+\w)'
    named = re.findall(paths, commands_of_today(page))
    assert [name for name in named if not any(REPO.glob(name))] == []


@EVERY_PAGE
def test_names_of_the_package_exist(page):
    named = set(re.findall(r'(?<![\w./])icconv_mm((?:\.[A-Za-z_]\w*)+)', (REPO / page).read_text()))
    assert sorted(name for name in named if not exists(name.strip('.').split('.'))) == []


@functools.cache
def registered() -> set[str]:
    """Classes and functions that a config finds as ``icconv_mm.Name``; from the source, which needs no task library."""
    sources = (path.read_text() for path in (REPO / 'icconv_mm').rglob('*.py'))
    matches = (re.findall(r"\.register_module\((?:name='(\w+)')?.*\)\n(?:class|def) (\w+)", text) for text in sources)
    return {given or class_name for names in matches for given, class_name in names}


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
    text = commands_of_today(page).replace('\\\n', ' ')
    shared = ''.join(path.read_text() for path in (REPO / 'icconv_mm/app').rglob('*.py'))
    missing = []
    tools = rf'(python tools/(?:dev/)?\w+\.py|icconv (?:{"|".join(COMMANDS)}))((?:[^\n`#;]|`\n)*)'
    for tool, options in re.findall(tools, text):
        source = source_of(tool) + shared
        missing += [f'{tool} {option}' for option in re.findall(r'--[a-z][\w-]*', options) if option not in source]
    assert not missing


def source_of(tool: str) -> str:
    """The source of a tool, or of a command of ``icconv``, which some of the tools are."""
    kind, name = tool.split()
    source = (REPO / name).read_text() if kind == 'python' else f'run_tool({name},'
    command = re.search(r'run_tool\((\w+),', source)
    return source + (inspect.getsource(COMMANDS[command[1]]) if command else '')
