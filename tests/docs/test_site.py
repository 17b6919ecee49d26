"""The documentation as a site: it builds without a warning, and its links lead somewhere."""

import subprocess
import sys
from html.parser import HTMLParser
from urllib.parse import unquote, urlsplit

import pytest
from pages import REPO

from icconv_mm.registry import LIBRARIES


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
    for library in ('sphinx', 'myst_parser', 'furo', *LIBRARIES):
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
            ids = pages[file].ids if file in pages else None
            if not file.exists() or (ids is not None and url.fragment and unquote(url.fragment) not in ids):
                broken.append(f'{path.relative_to(tmp_path)}: {target}')
    assert not broken
