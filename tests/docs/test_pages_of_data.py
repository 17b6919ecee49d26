"""The commands of the pages about one's own images run as they stand, on tiny sets."""

import gc
import re
import shlex
from pathlib import Path

import labelled
import pytest
from pages import REPO

from icconv_mm.app.commands import main

pytestmark = pytest.mark.slow

PAGES = {
    'cells': {'nuclei': labelled.masks, 'bccd': labelled.voc},
    'street_scenes': {'camvid': labelled.seg_maps},
    'own_skeleton': {'openfield': labelled.deeplabcut},
    'all_in_one': {'mine': None},
}
QUICK = ['--epochs', '1', '--pretrained', 'none', '--size', '64']


def commands(page: str, section: str = '') -> list[list[str]]:
    """The words of each command of a page's shell blocks, or of those of one section."""
    text = (REPO / 'docs' / f'{page}.md').read_text()
    if section:
        text = text.partition(f'\n## {section}\n')[2].partition('\n## ')[0]
    blocks = ''.join(re.findall(r'```bash\n(.*?)```', text, re.DOTALL)).replace('\\\n', ' ')
    return [shlex.split(line, comments=True) for line in blocks.splitlines() if line.startswith('icconv ')]


def _run(root: Path, words: list[str]) -> None:
    text = ' '.join(words[1:])
    for folder in re.findall(r'(\S+)/IMAGE', text):
        images = sorted(p for p in (root / folder).rglob('*') if p.suffix in ('.png', '.jpg'))
        first = next(p for p in images if 'mask' not in str(p.relative_to(root / folder)))
        text = text.replace(f'{folder}/IMAGE', str(first))
    quick = QUICK * (words[1] == 'train')
    gc.collect()  # see workspaces.py
    main([*re.sub(r' --size \d+', '', text).split(), *quick])


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
    lines = commands(page)
    assert any(words[1] == 'train' for words in lines)
    for words in lines:
        _run(tmp_path, words)


def test_dilations_are_searched_by_the_commands_of_their_page(tmp_path, monkeypatch):
    """The folder of the last training brings its pattern along."""
    pytest.importorskip('mmdet')
    monkeypatch.chdir(tmp_path)
    data = labelled.voc(tmp_path / 'FOLDER')
    lines = commands('search', "On one's own images")
    assert [words[1] for words in lines] == ['train', 'train', 'search', 'train']
    for words in lines:
        gc.collect()  # see workspaces.py
        main(words[1:] + QUICK * ('FOLDER' in words))
    (tmp_path / 'pattern.json').unlink()
    (tmp_path / 'searched').rename(tmp_path / 'moved')
    main(['predict', 'moved', str(data / 'JPEGImages'), '--out-dir', 'found'])
    assert (tmp_path / 'found' / 'predictions.json').is_file()
