"""The first config of a page is one of a network with what the page is about."""

import pytest
import torch
from mmengine.registry import MODELS, init_default_scope
from pages import code_blocks, config


@pytest.mark.parametrize(
    ('page', 'part', 'kind'),
    [
        ('docs/backbones.md', 'backbone', 'ICResNet'),
        ('docs/pyconv.md', 'backbone', 'PyConvResNet'),
        ('docs/fpt.md', 'neck', 'FPT'),
    ],
)
def test_configs(tmp_path, page, part, kind):
    pytest.importorskip('mmdet')
    block = next(block for block in code_blocks(page) if '_base_' in block)
    cfg = config(block.replace('detection/ic_resnet50_k9', 'geometric_d4'), tmp_path)
    init_default_scope(cfg.default_scope)
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    assert type(getattr(model, part)).__name__ == kind
