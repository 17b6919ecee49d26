"""The commands of the pages about one's own images run as they stand, on tiny sets."""

import re
import shlex
from pathlib import Path

import labelled
import pytest
from pages import REPO
from workspaces import Workspace

pytestmark = pytest.mark.slow

PAGES = {
    'cells': {'nuclei': labelled.masks, 'bccd': labelled.voc},
    'street_scenes': {'camvid': labelled.seg_maps},
    'own_skeleton': {'openfield': labelled.deeplabcut},
    'all_in_one': {'mine': None},
}


def commands(page: str) -> list[list[str]]:
    """The words of each command of a page's shell blocks."""
    text = (REPO / 'docs' / f'{page}.md').read_text()
    blocks = ''.join(re.findall(r'```bash\n(.*?)```', text, re.DOTALL)).replace('\\\n', ' ')
    return [shlex.split(line, comments=True) for line in blocks.splitlines() if line.startswith('python tools/')]


def _run(workspace: Workspace, words: list[str]) -> None:
    tool, arguments = Path(words[1]).stem, words[2:]
    text = ' '.join(arguments)
    for file in re.findall(r'\$\(cat (\S+)\)', text):
        text = text.replace(f'$(cat {file})', (workspace.root / file).read_text())
    for folder in re.findall(r'(\S+)/IMAGE', text):
        images = sorted(p for p in (workspace.root / folder).rglob('*') if p.suffix in ('.png', '.jpg'))
        first = next(p for p in images if 'mask' not in str(p.relative_to(workspace.root / folder)))
        text = text.replace(f'{folder}/IMAGE', str(first))
    quick = ' --epochs 1 --pretrained none --size 64' if tool == 'train' else ''
    text = re.sub(r' --size \d+', '', text) + quick
    error = workspace.tool(tool, *text.split())
    assert error is None, f'{tool} {text}: {error}'


@pytest.mark.parametrize('page', PAGES)
def test_the_commands_run_on_tiny_sets(tmp_path, page):
    for library in ('mmdet', 'mmseg', 'mmpose'):
        pytest.importorskip(library)
    for name, write in PAGES[page].items():
        if write is not None:
            write(tmp_path / 'data' / name)
        else:
            labelled.coco(tmp_path / 'data' / name / 'objects')
            labelled.seg_maps(tmp_path / 'data' / name / 'maps', ignore_index=255)
    found = commands(page)
    assert any('train.py' in words[1] for words in found)
    for words in found:
        _run(Workspace(tmp_path, REPO), words)
