_base_ = [
    'mmdet::fsaf/fsaf_r50_fpn_1x_coco.py',
    '../_base_/backbones/resnet50.py',
    '../_base_/values/sepc_warm_up.py',
]
custom_imports = dict(imports=['icconv_mm'], allow_failed_imports=False)

model = dict(
    backbone=dict(_delete_=True, **_base_.fine_tuned),
    bbox_head=dict(bbox_coder=dict(normalizer=1.0)),
)
param_scheduler = [_base_.sepc_warm_up, _base_.param_scheduler[1]]
