# Cascade R-CNN as IC-Conv's was trained, as far as it is known. A config that inherits it adds the backbone.
_base_ = [
    'mmdet::_base_/models/cascade-rcnn_r50_fpn.py',
    'mmdet::_base_/datasets/coco_detection.py',
    'mmdet::_base_/default_runtime.py',
    '../schedules/ic_14e.py',
    '../values/eod.py',
]
custom_imports = dict(imports=['icconv_mm'], allow_failed_imports=False)

heads = _base_.model.roi_head.bbox_head
stages = _base_.model.train_cfg.rcnn
model = dict(
    rpn_head=_base_.eod_rpn,
    roi_head=dict(
        type='icconv_mm.EODCascadeRoIHead',
        bbox_roi_extractor=_base_.eod_extractor,
        bbox_head=[dict(head, bbox_coder=dict(head.bbox_coder, type='icconv_mm.EODBBoxCoder')) for head in heads],
    ),
    train_cfg=dict(
        rpn=dict(assigner=dict(ignore_iof_thr=0.5)),
        rcnn=[dict(stage, assigner=dict(stage.assigner, ignore_iof_thr=0.5)) for stage in stages],
    ),
    test_cfg=dict(rcnn=dict(score_thr=0.0)),
)
