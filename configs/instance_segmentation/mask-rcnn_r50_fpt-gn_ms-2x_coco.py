_base_ = ['../_base_/recipes/mask-rcnn_fpt-gn_ms-2x_coco.py', '../_base_/backbones/resnet50.py']

model = dict(
    data_preprocessor=_base_.detectron_gn_pixels,
    backbone=dict(
        _delete_=True,
        **_base_.backbone,
        norm_cfg=_base_.group_norm,
        frozen_stages=1,
        init_cfg=dict(type='Pretrained', checkpoint='checkpoints/resnet50_gn_detectron.pth', prefix='backbone.'),
    ),
)
