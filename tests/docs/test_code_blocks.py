"""The Python blocks of a page run as they stand, one after the other; which these are: ``pages.runnable_blocks``."""

import pytest
from pages import REPO, runnable_blocks

# their code is run, and looked at more closely, in a file of their own
ELSEWHERE = {
    'README.md': 'test_readme_page.py',
    'docs/deploy.md': 'test_deploy_page.py',
}
NEEDS = {'docs/pose.md': ['mmpose'], 'docs/search.md': ['mmdet']}
PAGES = ['README.md', *(f'docs/{path.name}' for path in sorted((REPO / 'docs').glob('*.md')))]
WITH_CODE = [page for page in PAGES if page not in ELSEWHERE and runnable_blocks(page)]


@pytest.mark.parametrize('page', WITH_CODE)
def test_the_code_of_a_page_runs(page, tmp_path, monkeypatch):
    for library in NEEDS.get(page, ()):
        pytest.importorskip(library)
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for block in runnable_blocks(page):
        exec(compile(block, page, 'exec'), names)


def test_pages_with_code_are_found():
    assert {'docs/operators.md', 'docs/patterns.md', 'docs/pose.md', 'docs/multitask.md'} <= set(WITH_CODE)
    assert all(runnable_blocks(page) and (REPO / 'tests/docs' / file).is_file() for page, file in ELSEWHERE.items())
