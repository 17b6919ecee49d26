"""docs/checkpoints.md: the config snippets build what the text says."""

import pytest
import torch
from mmengine.registry import MODELS, init_default_scope
from pages import REPO, code_block, config


def snippet(name, tmp_path, family, **other):
    """The config of that name, which inherits from a family of configs; with other words in it."""
    block = code_block('docs/checkpoints.md', f'# {name}.py')
    for word, new in other.items():
        block = block.replace(word, new)
    return config(block, tmp_path, REPO / 'configs' / family)


@pytest.mark.parametrize('name', ['retinanet', 'fsaf'])
def test_the_sepc_snippet_decodes_boxes_as_its_authors_did(tmp_path, name):
    pytest.importorskip('mmdet')
    cfg = snippet('retinanet_r50_fpn-sepc_legacy-boxes', tmp_path, 'detection', retinanet=name)
    init_default_scope('mmdet')
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    head, neck = model.bbox_head, model.neck[1]
    assert type(head.prior_generator).__name__ == 'PixelAnchorGenerator' and head.prior_generator.center_offset == 0.5
    assert head.num_base_priors == (1 if name == 'fsaf' else 9)
    assert type(head.bbox_coder).__name__ == ('TBLRBBoxCoder' if name == 'fsaf' else 'DeltaXYWHBBoxCoder')
    assert getattr(head.bbox_coder, 'normalizer', 1.0) == 1.0
    assert neck.lcconv_padding == 0


def test_the_two_stage_snippet_has_the_boxes_of_mmdet_1(tmp_path):
    pytest.importorskip('mmdet')
    cfg = snippet('faster-rcnn_ic-r50-k9_fpn_legacy-boxes', tmp_path, 'detection')
    init_default_scope('mmdet')
    cfg.model.backbone.pattern = 'dense'
    cfg.model.backbone.init_cfg = None
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    assert type(model.rpn_head.prior_generator).__name__ == 'PixelAnchorGenerator'
    assert type(model.roi_head.bbox_roi_extractor).__name__ == 'SingleRoIExtractor'
    assert {(layer.aligned, layer.sampling_ratio) for layer in model.roi_head.bbox_roi_extractor.roi_layers} == {
        (False, 2)
    }
