"""The Python blocks of a page run as they stand, one after the other; which these are: ``pages.runnable_blocks``."""

import labelled
import pytest
from pages import REPO, runnable_blocks

from icconv_mm.registry import HOOKS

# its code is run, and looked at more closely, in a file of its own
ELSEWHERE = {'README.md': 'test_readme_page.py'}
NEEDS = {
    'docs/api/annotations.md': ['pycocotools'],
    'docs/pose.md': ['mmpose'],
    'docs/search.md': ['mmdet'],
    'docs/deploy.md': ['onnxruntime'],
}
SLOW = ('docs/deploy.md',)
PAGES = [
    'README.md',
    *(f'docs/{path.name}' for path in sorted((REPO / 'docs').glob('*.md'))),
    'docs/api/annotations.md',
]
WITH_CODE = [page for page in PAGES if page not in ELSEWHERE and runnable_blocks(page)]


@pytest.mark.parametrize(
    'page', [pytest.param(page, marks=[pytest.mark.slow] if page in SLOW else []) for page in WITH_CODE]
)
def test_the_code_of_a_page_runs(page, tmp_path, monkeypatch):
    for library in NEEDS.get(page, ()):
        pytest.importorskip(library)
    monkeypatch.chdir(tmp_path)
    if page == 'docs/api/annotations.md':
        labelled.coco(tmp_path / 'data/mine')
    names: dict = {}
    for block in runnable_blocks(page):
        exec(compile(block, page, 'exec'), names)
    for hook in names.get('custom_hooks', ()):
        HOOKS.build(hook)


def test_pages_with_code_are_found():
    assert {'docs/operators.md', 'docs/patterns.md', 'docs/pose.md', 'docs/multitask.md', 'docs/deploy.md'} <= set(
        WITH_CODE
    )
    assert all(runnable_blocks(page) and (REPO / 'tests/docs' / file).is_file() for page, file in ELSEWHERE.items())
