"""docs/getting_started.md: every option of the libraries' tools is one of ours, or a row says what takes its place."""

import importlib.util
import re
from pathlib import Path

import pytest
from pages import REPO, section, tables


def options(path: Path) -> set[str]:
    return set(re.findall(r"'(--[a-z][\w-]*)'", path.read_text()))


@pytest.mark.parametrize('library', ['mmdet', 'mmseg', 'mmpose', 'mmpretrain'])
@pytest.mark.parametrize('tool', ['train', 'test'])
def test_options_of_the_libraries_tools(library, tool):
    pytest.importorskip(library)
    theirs = options(Path(importlib.util.find_spec(library).origin).parent / f'.mim/tools/{tool}.py')
    shared = options(REPO / 'icconv_mm/apis/config_arguments.py')
    missing = theirs - options(REPO / f'tools/{tool}.py') - shared
    ((_, *rows),) = tables(section('docs/getting_started.md', "Options of the libraries' tools"))
    told = {name for row, of, _ in rows if f'{tool}:' in of and library in of for name in re.findall(r'--[\w-]+', row)}
    assert len(theirs) > 5 and missing <= told
    assert library != 'mmdet' or not missing
