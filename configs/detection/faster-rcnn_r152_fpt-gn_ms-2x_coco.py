_base_ = ['../_base_/recipes/faster-rcnn_fpt-gn_ms-2x_coco.py', '../_base_/backbones/resnet152.py']

model = dict(backbone=dict(_delete_=True, **_base_.fine_tuned, norm_cfg=dict(type='BN', requires_grad=False)))
