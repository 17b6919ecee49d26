_base_ = ['../_base_/recipes/faster-rcnn_ic_fpn_1x_coco.py', '../_base_/backbones/ic_resnet101_k9.py']

model = dict(backbone=dict(_delete_=True, **_base_.fine_tuned, norm_cfg=dict(type='BN', requires_grad=False)))
