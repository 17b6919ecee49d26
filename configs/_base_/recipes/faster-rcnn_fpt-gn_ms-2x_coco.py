# Faster R-CNN with FPT in the place of the FPN, as its authors trained it. A config that inherits it adds the backbone.
_base_ = [
    'mmdet::_base_/models/faster-rcnn_r50_fpn.py',
    'mmdet::_base_/datasets/coco_detection.py',
    'mmdet::_base_/default_runtime.py',
    '../necks/fpt.py',
    '../pipelines/fpt_multi_scale.py',
    '../schedules/fpt_120k.py',
]
custom_imports = dict(imports=['icconv_mm'], allow_failed_imports=False)

every_level = dict(
    type='GenericRoIExtractor', aggregation='concat', out_channels=1024, roi_layer=dict(sampling_ratio=2)
)
model = dict(
    neck=dict(_delete_=True, **_base_.neck),
    rpn_head=dict(loss_bbox=dict(type='SmoothL1Loss', beta=1 / 9)),
    roi_head=dict(
        bbox_roi_extractor=every_level,
        bbox_head=dict(type='icconv_mm.PANetBBoxHead', loss_bbox=dict(type='SmoothL1Loss', beta=1 / 3)),
    ),
    train_cfg=dict(
        rpn=dict(allowed_border=0),  # anchors within the image learn
        rpn_proposal=dict(max_per_img=2000),
        rcnn=dict(assigner=dict(ignore_iof_thr=0.7)),  # of a crowd's box
    ),
)
train_dataloader = dict(
    sampler=dict(type='InfiniteSampler'),
    dataset=dict(pipeline=_base_.fpt_box_pipeline),
)
val_dataloader = dict(dataset=dict(pipeline=_base_.fpt_test_pipeline))
test_dataloader = val_dataloader
default_hooks = _base_.iteration_hooks
log_processor = dict(by_epoch=False)
