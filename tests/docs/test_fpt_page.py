"""docs/fpt.md: the config of the guide changes the backbone of its recipe, and nothing else."""

from mmengine.config import Config
from pages import REPO, code_block, config


def test_the_guide_changes_the_backbone_alone(tmp_path):
    family = REPO / 'configs/instance_segmentation'
    ours = config(code_block('docs/fpt.md', '# mask-rcnn_ic-r101-k9_fpt.py'), tmp_path, family)
    base = Config.fromfile(family / 'mask-rcnn_r152_fpt-gn_ms-2x_coco.py')
    assert (ours.model.backbone.depth, ours.model.backbone.type) == (101, 'icconv_mm.ICResNet')
    assert 'norm_cfg' not in ours.model.backbone
    for cfg in (ours, base):
        del cfg.model['backbone']
        for variable in ('backbone', 'weights', 'pretrained', 'fine_tuned'):
            cfg.pop(variable)
    assert ours.to_dict() == base.to_dict()
