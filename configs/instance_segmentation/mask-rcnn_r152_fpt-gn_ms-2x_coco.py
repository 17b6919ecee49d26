_base_ = ['../_base_/recipes/mask-rcnn_fpt-gn_ms-2x_coco.py', '../_base_/backbones/resnet152.py']

model = dict(
    backbone=dict(
        _delete_=True,
        **_base_.backbone,
        norm_cfg=_base_.frozen_batch_norm,
        norm_eval=True,
        frozen_stages=1,
        init_cfg=_base_.weights,
    )
)
