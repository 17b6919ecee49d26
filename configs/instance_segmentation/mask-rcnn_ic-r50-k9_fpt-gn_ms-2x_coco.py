_base_ = [
    'mmdet::mask_rcnn/mask-rcnn_r50_fpn_2x_coco.py',
    '../_base_/backbones/ic_resnet50_k9_seg.py',
    '../_base_/necks/fpt.py',
    '../_base_/datasets/fpt_multi_scale.py',
]
custom_imports = dict(imports=['icconv_mm'], allow_failed_imports=False)

model = dict(
    backbone=dict(
        _delete_=True,
        **_base_.backbone,
        frozen_stages=1,
        norm_eval=True,
        init_cfg=dict(type='Pretrained', checkpoint='checkpoints/ic_resnet50_k9_seg_imagenet.pth', prefix='backbone.'),
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
