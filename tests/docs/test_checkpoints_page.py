"""docs/checkpoints.md: the config snippets build what the text says."""

import pytest
import torch
from mmengine.registry import MODELS, init_default_scope
from pages import REPO, code_block, config


def snippet(name, tmp_path, family):
    """The config of that name, which inherits from a family of configs."""
    return config(code_block('docs/checkpoints.md', f'# {name}.py'), tmp_path, REPO / 'configs' / family)


@pytest.mark.parametrize('name', ['retinanet', 'fsaf'])
def test_the_sepc_snippet_decodes_boxes_as_its_authors_did(tmp_path, name):
    pytest.importorskip('mmdet')
    cfg = snippet(f'{name}_r50_fpn-sepc_legacy-boxes', tmp_path, 'detection')
    init_default_scope('mmdet')
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    head, neck = model.bbox_head, model.neck[1]
    assert type(head.prior_generator).__name__ == 'PixelAnchorGenerator' and head.prior_generator.center_offset == 0.5
    assert head.num_base_priors == (1 if name == 'fsaf' else 9)
    assert type(head.bbox_coder).__name__ == ('TBLRBBoxCoder' if name == 'fsaf' else 'DeltaXYWHBBoxCoder')
    assert getattr(head.bbox_coder, 'normalizer', 1.0) == 1.0
    assert neck.lcconv_padding == 0


@pytest.mark.parametrize('name', ['faster-rcnn', 'cascade-rcnn'])
def test_the_two_stage_snippet_uses_legacy_anchors_and_coders(tmp_path, name):
    pytest.importorskip('mmdet')
    cfg = snippet(f'{name}_ic-r50-k9_fpn_legacy-boxes', tmp_path, 'detection')
    init_default_scope('mmdet')
    cfg.model.backbone.pattern = 'dense'
    cfg.model.backbone.init_cfg = None
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    heads = model.roi_head.bbox_head if name == 'cascade-rcnn' else [model.roi_head.bbox_head]
    extractors = model.roi_head.bbox_roi_extractor if name == 'cascade-rcnn' else [model.roi_head.bbox_roi_extractor]
    coders = [model.rpn_head.bbox_coder, *(head.bbox_coder for head in heads)]
    assert {type(coder).__name__ for coder in coders} == {'LegacyDeltaXYWHBBoxCoder'}
    assert type(model.rpn_head.prior_generator).__name__ == 'LegacyAnchorGenerator'
    layers = [layer for extractor in extractors for layer in extractor.roi_layers]
    assert {(layer.aligned, layer.sampling_ratio) for layer in layers} == {(False, 2)}
    stds = [tuple(head.bbox_coder.stds) for head in heads]
    assert stds[0] == (0.1, 0.1, 0.2, 0.2) and len(set(stds)) == len(stds)  # of each stage, as before
