_base_ = ['../_base_/recipes/mask-rcnn_ic_fpn_1x_coco.py', '../_base_/backbones/ic_resnet50_k9_seg.py']

model = dict(backbone=dict(_delete_=True, **_base_.fine_tuned, norm_cfg=dict(type='BN', requires_grad=False)))
