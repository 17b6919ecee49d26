"""The site of the documentation: ``make docs``. Its pages are the Markdown files of the repository, where they are."""

import os
import re
from pathlib import Path

from icconv_mm._version import __version__

ROOT = Path(__file__).resolve().parents[1]

project = 'icconv_mm'
author = copyright = 'icconv_mm contributors'
version = release = __version__
language = 'en'

# The source folder is the root of the repository (sphinx-build -c docs . OUT), so that links lead where they do there.
root_doc = 'docs/README'
include_patterns = ['README.md', 'CHANGELOG.md', 'CONTRIBUTING.md', 'SECURITY.md', 'docs/**.md', 'configs/README.md',
                    'configs/**/README.md', 'tools/README.md', 'tools/dev/**README.md',
                    'tests/**README.md', 'icconv_mm/weights/README.md']  # fmt: skip

exclude_patterns = ['configs/.mim']  # links for openmim, of an editable install

extensions = [
    'myst_parser',
    'sphinx.ext.autodoc',
    'sphinx.ext.napoleon',
    'sphinx.ext.viewcode',
    'sphinx_copybutton',
]
myst_heading_anchors = 4  # named as GitHub names them
autodoc_member_order = 'alphabetical'
autodoc_default_options = {'exclude-members': 'output_type'}  # a class of Python's, whose source has no page
autodoc_typehints = 'description'
autodoc_typehints_description_target = 'documented'
napoleon_use_rtype = False
copybutton_exclude = '.linenos, .gp'

html_theme = 'furo'
html_title = f'icconv_mm {__version__}'
html_show_sphinx = html_copy_source = False


def point_inside(app, name: str, source: list[str]) -> None:
    """Links to folders lead to their README; those to what is no page of the site become plain text."""
    folder = (ROOT / app.env.doc2path(name, base=False)).parent

    def lead(match: re.Match) -> str:
        text, target, anchor = match['text'], match['target'], match['anchor'] or ''
        path = folder / target
        if path.is_dir() and (path / 'README.md').is_file():
            return f'[{text}]({os.path.relpath(path / "README.md", folder)}{anchor})'
        if not path.exists() or path.suffix in ('.md', '.png', '.jpg'):
            return match[0]
        if text.startswith('`') or path.stem == text:
            return f'`{text.strip("`")}`'
        return f'{text} (`{os.path.relpath(path, ROOT)}`)'

    link = r'(?<!!)\[(?P<text>[^][]*)\]\((?P<target>[^)#:\s]+)(?P<anchor>#[^)\s]+)?\)'
    source[0] = re.sub(link, lead, source[0])


def list_pages(app, name: str, source: list[str]) -> None:
    """The tree of pages is that of the tables of docs/README.md; there is no such block in it on GitHub."""
    if name != root_doc:
        return
    trees = re.findall(r'^## (.+)\n((?:(?!## ).*\n)*)', source[0], re.MULTILINE)
    pages = {title: re.findall(r'^\| \[\S+\]\(([\w./*-]+)\.md\)', text, re.MULTILINE) for title, text in trees}
    pages |= {'API': ['api/*'], 'Recipes': ['../configs/README', '../configs/*/README'],
              'Measurements': ['measurements/README'],
              'Project': ['../README', '../CHANGELOG', '../CONTRIBUTING', '../SECURITY', '../tools/README',
                          '../tools/dev/README', '../tools/dev/*/README', '../tests/README',
                          '../tests/data/README', '../icconv_mm/weights/README']}  # fmt: skip
    for title, entries in pages.items():
        if entries:
            source[0] += f'\n```{{toctree}}\n:hidden:\n:glob:\n:titlesonly:\n:caption: {title}\n\n'
            source[0] += '\n'.join(entries) + '\n```\n'


def list_measurements(app, name: str, source: list[str]) -> None:
    """The pages of measurements hang below their index, the newest first; there is no such block in it on GitHub."""
    if name == 'docs/measurements/README':
        source[0] += '\n```{toctree}\n:hidden:\n:glob:\n:reversed:\n\n20*\n```\n'


def begin_at_the_index(app, error: Exception | None) -> None:
    """A page at the root of the site that leads to the first one."""
    if error is None and app.builder.name == 'html':
        page = '<!doctype html><meta http-equiv="refresh" content="0; url=docs/README.html"><title>icconv_mm</title>\n'
        Path(app.outdir, 'index.html').write_text(page)


def setup(app) -> None:
    app.connect('source-read', point_inside)
    app.connect('source-read', list_pages)
    app.connect('source-read', list_measurements)
    app.connect('build-finished', begin_at_the_index)
