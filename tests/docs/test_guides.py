"""Guides: their config snippets build what the text says."""

import pytest
import torch
from mmengine.config import Config
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


def test_the_guide_changes_the_backbone_alone(tmp_path):
    family = REPO / 'configs/instance_segmentation'
    ours = config(code_block('docs/fpt.md', '# mask-rcnn_ic-r101-k9_fpt.py'), tmp_path, family)
    base = Config.fromfile(family / 'mask-rcnn_ic-r50-k9-seg_fpt-gn_ms-2x_coco.py')
    assert (ours.model.backbone.depth, ours.model.backbone.type) == (101, 'icconv_mm.ICResNet')
    assert 'norm_cfg' not in ours.model.backbone
    for cfg in (ours, base):
        del cfg.model['backbone']
        for variable in ('backbone', 'weights', 'pretrained', 'fine_tuned'):
            cfg.pop(variable)
    assert ours.to_dict() == base.to_dict()
