_base_ = [
    'mmdet::mask_rcnn/mask-rcnn_r50_fpn_2x_coco.py',
    '../_base_/backbones/resnet152.py',
    '../_base_/necks/fpt.py',
    '../_base_/datasets/fpt_multi_scale.py',
]
custom_imports = dict(imports=['icconv_mm'], allow_failed_imports=False)

model = dict(
    backbone=dict(
        _delete_=True,
        **_base_.backbone,
        norm_cfg=_base_.frozen_batch_norm,
        norm_eval=True,
        frozen_stages=1,
        init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet152'),
    ),
    neck=dict(_delete_=True, **_base_.neck),
    roi_head=dict(
        bbox_head=dict(type='Shared4Conv1FCBBoxHead', conv_out_channels=256, norm_cfg=_base_.group_norm),
        mask_head=dict(norm_cfg=_base_.group_norm),
    ),
)
train_dataloader = dict(dataset=dict(pipeline=_base_.fpt_mask_pipeline))
val_dataloader = dict(dataset=dict(pipeline=_base_.fpt_test_pipeline))
test_dataloader = val_dataloader
