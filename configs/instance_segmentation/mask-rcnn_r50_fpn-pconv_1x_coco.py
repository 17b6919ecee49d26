_base_ = [
    'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py',
    '../_base_/backbones/resnet50.py',
    '../_base_/necks/pconv.py',
]
custom_imports = dict(imports=['icconv_mm'], allow_failed_imports=False)

model = dict(backbone=dict(_delete_=True, **_base_.fine_tuned), neck=[_base_.model.neck, _base_.neck])
optim_wrapper = dict(clip_grad=dict(max_norm=35, norm_type=2))
