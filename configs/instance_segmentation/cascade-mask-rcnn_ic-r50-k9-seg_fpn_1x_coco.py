_base_ = ['mmdet::cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py', '../_base_/backbones/ic_resnet50_k9_seg.py']
custom_imports = dict(imports=['icconv_mm'], allow_failed_imports=False)

model = dict(backbone=dict(_delete_=True, **_base_.fine_tuned))
