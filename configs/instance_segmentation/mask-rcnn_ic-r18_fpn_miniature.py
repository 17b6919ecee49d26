_base_ = [
    'mmdet::_base_/models/mask-rcnn_r50_fpn.py',
    '../_base_/values/miniature_narrow.py',
    '../_base_/backbones/ic_resnet18.py',
    '../_base_/datasets/miniature_instance.py',
    '../_base_/schedules/miniature_mmdet.py',
]
custom_imports = dict(imports=['icconv_mm'], allow_failed_imports=False)

model = dict(
    _base_.narrow.rcnn,
    neck=_base_.narrow.fpn,
    backbone=dict(_delete_=True, **_base_.backbone, norm_eval=False),
    roi_head=dict(**_base_.narrow.rcnn.roi_head, **_base_.narrow.mask_branch),
)
