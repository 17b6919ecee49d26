# Two tasks: boxes by Faster R-CNN, and poses.
_base_ = './multitask_ic-r50-k9_fpn_8xb4-50e_coco-640x640.py'

heads = _base_.model.tasks.instance
model = dict(
    tasks=dict(
        _delete_=True,
        detection=dict(
            type='mmdet.FasterRCNN',
            rpn_head=heads.rpn_head,
            roi_head=dict(
                type='StandardRoIHead',
                bbox_roi_extractor=heads.roi_head.bbox_roi_extractor,
                bbox_head=heads.roi_head.bbox_head,
            ),
            train_cfg=heads.train_cfg,
            test_cfg=heads.test_cfg,
        ),
        pose=_base_.model.tasks.pose,
    )
)

load_detection = dict(
    type='icconv_mm.LoadTaskAnnotations', detection=dict(type='mmdet.LoadAnnotations', with_bbox=True)
)
pack_detection = dict(type='icconv_mm.PackTaskInputs', detection=_base_.pack.instance)
train_dataloader = dict(
    dataset=dict(
        datasets=dict(_delete_=True, detection=_base_.train_instance, pose=_base_.train_pose),
        pipeline=[
            dict(type='LoadImageFromFile'),
            load_detection,
            *_base_.geometry,
            dict(**pack_detection, pose=_base_.pack_people),
        ],
    )
)
val_dataloader = dict(
    dataset=dict(
        datasets=dict(_delete_=True, detection=_base_.val_instance, pose=_base_.val_pose),
        pipeline=[
            dict(type='LoadImageFromFile'),
            _base_.resize,
            load_detection,
            dict(**pack_detection, pose=_base_.pack.pose),
        ],
    )
)
test_dataloader = val_dataloader
val_evaluator = [
    dict(_base_.instance_metric, task='detection', metric=dict(_base_.instance_metric.metric, metric='bbox')),
    _base_.pose_metric,
]
test_evaluator = val_evaluator
