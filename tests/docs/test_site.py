"""The documentation as a site: it builds without a warning, and its API pages name everything that is public."""

import importlib
import re
import subprocess
import sys
from html.parser import HTMLParser
from urllib.parse import unquote, urlsplit

import pytest
from pages import REPO

from icconv_mm.utils import task_folders

API = sorted((REPO / 'docs/api').glob('*.md'))
LIBRARIES = {task: library for library, task in task_folders.TASKS.items()}


def listed() -> dict[str, set[str]]:
    """Module -> the names that an API page lists."""
    found: dict[str, set[str]] = {}
    for page in API:
        for block in page.read_text().split('.. currentmodule:: ')[1:]:
            summary = block.partition('.. autosummary::')[2].partition('\n\n.. automodule::')[0]
            names = re.findall(r'^   (\w+)$', summary, re.M) + re.findall(r'^\.\. py:data:: (\w+)$', block, re.M)
            assert len(names) == len(set(names)), page
            found[block.split('\n')[0]] = set(names)
    return found


def modules_with_names() -> list[str]:
    paths = [path.relative_to(REPO) for path in (REPO / 'icconv_mm').rglob('*.py') if '\n__all__' in path.read_text()]
    names = ['.'.join(path.with_suffix('').parts).removesuffix('.__init__') for path in paths]
    return sorted(name for name in names if name not in ('icconv_mm', 'icconv_mm.bricks'))  # bricks: not for users


@pytest.mark.parametrize('name', modules_with_names())
def test_every_public_name_is_on_an_api_page(name):
    if (task := name.rpartition('.')[2]) in LIBRARIES:
        pytest.importorskip(LIBRARIES[task])
    module = importlib.import_module(name)
    assert listed().get(name) == set(module.__all__)


def test_names_on_api_pages_exist():
    for name, names in listed().items():
        if (task := name.rpartition('.')[2]) in LIBRARIES:
            pytest.importorskip(LIBRARIES[task])
        module = importlib.import_module(name)
        assert [each for each in names if not hasattr(module, each)] == [], name


def test_public_names_of_the_package_are_on_an_api_page():
    """Each is a subpackage with a page, or a function of one."""
    import icconv_mm

    every = {name for names in listed().values() for name in names} | {name.split('.')[1] for name in listed()}
    names = {*icconv_mm.__all__, *icconv_mm._HOMES, *icconv_mm._SUBPACKAGES}
    assert names - every - {'__version__'} == set()


def test_helpers_are_not_public():
    from icconv_mm import errors

    assert all(issubclass(getattr(errors, name), errors.UserError) for name in listed()['icconv_mm.errors'])
    assert not {name.split('.')[1] for name in listed()} & {'bricks', 'utils'}


def test_every_error_of_the_user_is_on_an_api_page():
    """Those that derive from :class:`icconv_mm.errors.UserError`, which somebody may want to catch."""
    code = '\n'.join(path.read_text() for path in (REPO / 'icconv_mm').rglob('*.py'))
    classes = re.findall(r'^class ([A-Z]\w+Error)\((.*)\):', code, re.M)
    known = {'UserError'}
    while more := {name for name, bases in classes if known & set(re.findall(r'\w+', bases))} - known:
        known |= more
    named = set(re.findall(r'\w+Error\b', ''.join(page.read_text() for page in API)))
    assert len(known) > 15 and known - named == set()


def test_every_page_is_in_the_contents():
    """Those of measurements below their index: in the contents they would be more than all others."""
    text = (REPO / 'docs/index.md').read_text()
    patterns = re.findall(r'^([\w./*-]+)$', text, re.M)
    shown = {path.resolve() for pattern in patterns for path in (REPO / 'docs').glob(f'{pattern}.md')}
    pages = {*REPO.glob('docs/**/*.md'), *REPO.glob('configs/**/README.md'), REPO / 'README.md', REPO / 'CHANGELOG.md'}
    measured = set(REPO.glob('docs/measurements/20*.md'))
    assert pages - measured - {REPO / 'docs/index.md'} <= shown and not measured & shown
    assert [pattern for pattern in patterns if not any((REPO / 'docs').glob(f'{pattern}.md'))] == []


class _Links(HTMLParser):
    def __init__(self, text: str):
        super().__init__()
        self.targets, self.ids = [], set()
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.ids.add(values.get('id'))
        self.targets += [values[name] for name in ('href', 'src') if values.get(name)]


@pytest.mark.slow
def test_the_site_builds_and_its_links_lead_somewhere(tmp_path):
    for library in ('sphinx', 'myst_parser', 'furo', *LIBRARIES.values()):
        pytest.importorskip(library)
    command = [sys.executable, '-W', 'ignore', '-m', 'sphinx', '-b', 'html', '-c', 'docs', '-W', '-q', '-d']
    command += [tmp_path / 'trees', '.', tmp_path / 'site']
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    pages = {path: _Links(path.read_text()) for path in (tmp_path / 'site').rglob('*.html')}
    assert len(pages) > 40
    broken = []
    for path, page in pages.items():
        for target in page.targets:
            url = urlsplit(target)
            if url.scheme or url.netloc:
                continue
            file = (path.parent / unquote(url.path)).resolve() if url.path else path
            known = pages[file].ids if file in pages else None
            if not file.exists() or (known is not None and url.fragment and unquote(url.fragment) not in known):
                broken.append(f'{path.relative_to(tmp_path)}: {target}')
    assert not broken
