# Faster R-CNN as IC-Conv's was trained, as far as it is known. A config that inherits it adds the backbone.
_base_ = [
    'mmdet::_base_/models/faster-rcnn_r50_fpn.py',
    'mmdet::_base_/datasets/coco_detection.py',
    'mmdet::_base_/default_runtime.py',
    '../schedules/ic_14e.py',
    '../values/eod.py',
]
custom_imports = dict(imports=['icconv_mm'], allow_failed_imports=False)

model = dict(
    rpn_head=dict(**_base_.eod_rpn, loss_bbox=dict(type='SmoothL1Loss', beta=1 / 9)),
    roi_head=dict(
        bbox_roi_extractor=_base_.eod_extractor,
        bbox_head=dict(bbox_coder=_base_.eod_coder, loss_bbox=dict(type='SmoothL1Loss', beta=1.0)),
    ),
    train_cfg=dict(
        rpn=dict(assigner=dict(ignore_iof_thr=0.5), allowed_border=0),
        rpn_proposal=dict(max_per_img=2000),
        rcnn=dict(assigner=dict(ignore_iof_thr=0.5)),
    ),
    test_cfg=dict(rcnn=dict(score_thr=0.0)),
)
