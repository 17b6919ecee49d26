_base_ = ['../_base_/recipes/faster-rcnn_fpt-gn_ms-2x_coco.py', '../_base_/backbones/resnext101_32x8d.py']

model = dict(
    data_preprocessor=_base_.detectron_resnext_pixels,
    backbone=dict(
        _delete_=True,
        **_base_.backbone,
        norm_cfg=_base_.frozen_batch_norm,
        norm_eval=True,
        frozen_stages=1,
        init_cfg=dict(type='Pretrained', checkpoint='checkpoints/resnext101_32x8d_detectron.pth', prefix='backbone.'),
    ),
)
