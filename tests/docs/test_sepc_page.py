"""The config snippets of docs/sepc.md build models whose necks are what the text says."""

import re

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

NECKS = {
    'RetinaNet with SEPC': ['FPN', 'SEPC'],
    'Faster, Cascade and Mask R-CNN': ['FPN', 'PConv'],
    'Semantic FPN with pyramid convolutions': ['FPN', 'PConv'],
    'Bottom-up pose on the finest level': ['FPN', 'PConv'],
}


@pytest.mark.parametrize('title', NECKS)
def test_snippet_builds(repo, tmp_path, title):
    blocks = re.findall(r'```python\n(.*?)```', (repo / 'docs/sepc.md').read_text(), flags=re.DOTALL)
    (text,) = (block for block in blocks if block.startswith(f'# {title}'))
    path = tmp_path / 'config.py'
    path.write_text(text.replace('{configs}', str(repo / 'configs')))
    cfg = Config.fromfile(path)
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
