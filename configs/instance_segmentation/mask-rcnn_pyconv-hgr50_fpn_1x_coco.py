_base_ = ['mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py', '../_base_/backbones/pyconv_hgresnet50.py']
custom_imports = dict(imports=['icconv_mm'], allow_failed_imports=False)

model = dict(backbone=dict(_delete_=True, **_base_.fine_tuned))
