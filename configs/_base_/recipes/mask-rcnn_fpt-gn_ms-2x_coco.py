# Mask R-CNN with FPT in the place of the FPN. A config that inherits it adds the backbone.
_base_ = [
    'mmdet::mask_rcnn/mask-rcnn_r50_fpn_2x_coco.py',
    '../necks/fpt.py',
    '../pipelines/fpt_multi_scale.py',
]
custom_imports = dict(imports=['icconv_mm'], allow_failed_imports=False)

group_norm = dict(type='GN', num_groups=32)
model = dict(
    neck=dict(_delete_=True, **_base_.neck),
    roi_head=dict(
        bbox_head=dict(type='Shared4Conv1FCBBoxHead', conv_out_channels=256, norm_cfg=group_norm),
        mask_head=dict(norm_cfg=group_norm),
    ),
)
train_dataloader = dict(dataset=dict(pipeline=_base_.fpt_mask_pipeline))
val_dataloader = dict(dataset=dict(pipeline=_base_.fpt_test_pipeline))
test_dataloader = val_dataloader
