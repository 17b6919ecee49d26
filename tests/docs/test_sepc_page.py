"""docs/sepc.md: the config snippets build models whose necks are what the text says."""

import re

import pytest
import torch
from mmengine.registry import MODELS, init_default_scope
from pages import REPO, code_block, config

NECKS = {
    'RetinaNet with SEPC': ['FPN', 'SEPC'],
    'Faster, Cascade and Mask R-CNN': ['FPN', 'PConv'],
    'Semantic FPN with pyramid convolutions': ['FPN', 'PConv'],
    'Bottom-up pose on the finest level': ['FPN', 'PConv'],
}


@pytest.mark.parametrize('title', NECKS)
def test_snippets_build_the_necks_that_they_name(tmp_path, title):
    cfg = config(code_block('docs/sepc.md', f'# {title}'), tmp_path)
    pytest.importorskip(cfg.default_scope)
    init_default_scope(cfg.default_scope)
    cfg.model.pop('pretrained', None)
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    necks = getattr(model.neck, 'necks', model.neck)
    assert [type(neck).__name__ for neck in necks] == NECKS[title]
    if title == 'RetinaNet with SEPC':
        assert type(model.bbox_head).__name__ == 'RetinaHead'
    if 'pose' in title:
        assert model.head.in_index == 0


def test_families_are_counted():
    tried = (REPO / 'tests/integration/test_necks_in_detectors.py').read_text()
    rows = re.findall(r"^    '(\w+)/\S+\.py': \(\d+, (\w+)\),$", tried, re.MULTILINE)
    accepted = sum(refusal == 'None' for _, refusal in rows)
    text = ' '.join((REPO / 'docs/sepc.md').read_text().split())
    assert f'takes {len(rows)} configs of {len({family for family, _ in rows})} families of mmdet' in text
    assert f'With `SEPC` {accepted} do, and the heads of the other {len(rows) - accepted} are refused' in text
