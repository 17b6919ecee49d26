"""What the documentation points to exists."""

import re
import subprocess

import pytest


def pages(repo):
    listed = subprocess.run(['git', 'ls-files', '*.md'], cwd=repo, capture_output=True, text=True, check=True).stdout
    return [repo / name for name in listed.split()]


def test_links_lead_somewhere(repo):
    broken = []
    for page in pages(repo):
        for target in re.findall(r'\]\(([^)#\s]+)[^)]*\)', page.read_text()):
            if not re.match(r'(https?|mailto):', target) and not (page.parent / target).exists():
                broken.append(f'{page.relative_to(repo)}: {target}')
    assert not broken, broken


@pytest.mark.parametrize('kind', ['tools', 'configs'])
def test_commands_name_files_that_exist(repo, kind):
    missing = []
    for page in pages(repo):
        for name in re.findall(rf'\b{kind}/[\w./-]+\.py\b', page.read_text()):
            if not (repo / name).is_file() and not (page.parent / name).is_file():
                missing.append(f'{page.relative_to(repo)}: {name}')
    assert not missing, missing


def test_no_page_holds_a_placeholder(repo):
    for page in pages(repo):
        assert not re.search(r'\b(TODO|FIXME|TBD|XXX)\b|(_TABLE|TESTED_\w+)\b', page.read_text()), page
