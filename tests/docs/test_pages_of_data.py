"""The commands of the pages about one's own images run as they stand, on tiny sets."""

import gc
import re
import shlex
from pathlib import Path

import labelled
import pytest
from pages import REPO

from icconv_mm.commands import main

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
    return [shlex.split(line, comments=True) for line in blocks.splitlines() if line.startswith('icconv ')]


def _run(root: Path, words: list[str]) -> None:
    text = ' '.join(words[1:])
    for folder in re.findall(r'(\S+)/IMAGE', text):
        images = sorted(p for p in (root / folder).rglob('*') if p.suffix in ('.png', '.jpg'))
        first = next(p for p in images if 'mask' not in str(p.relative_to(root / folder)))
        text = text.replace(f'{folder}/IMAGE', str(first))
    quick = ' --epochs 1 --pretrained none --size 64' if words[1] == 'train' else ''
    gc.collect()  # see workspaces.py
    main((re.sub(r' --size \d+', '', text) + quick).split())


@pytest.mark.parametrize('page', PAGES)
def test_the_commands_run_on_tiny_sets(tmp_path, page, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for library in ('mmdet', 'mmseg', 'mmpose'):
        pytest.importorskip(library)
    for name, write in PAGES[page].items():
        if write is not None:
            write(tmp_path / 'data' / name)
        else:
            labelled.coco(tmp_path / 'data' / name / 'objects')
            labelled.seg_maps(tmp_path / 'data' / name / 'maps', ignore_index=255)
    found = commands(page)
    assert any(words[1] == 'train' for words in found)
    for words in found:
        _run(tmp_path, words)
