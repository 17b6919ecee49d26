_base_ = [
    'mmdet::faster_rcnn/faster-rcnn_r50_fpn_2x_coco.py',
    '../_base_/backbones/pyconv_resnet50.py',
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
        init_cfg=dict(type='Pretrained', checkpoint='checkpoints/pyconv_resnet50_imagenet.pth', prefix='backbone.'),
    ),
    neck=dict(_delete_=True, **_base_.neck),
    roi_head=dict(bbox_head=dict(type='Shared4Conv1FCBBoxHead', conv_out_channels=256, norm_cfg=_base_.group_norm)),
)
train_dataloader = dict(dataset=dict(pipeline=_base_.fpt_box_pipeline))
val_dataloader = dict(dataset=dict(pipeline=_base_.fpt_test_pipeline))
test_dataloader = val_dataloader
