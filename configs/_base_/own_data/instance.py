# Mask R-CNN for one's own images.
_base_ = ['mmdet::_base_/models/mask-rcnn_r50_fpn.py', './runtime.py']
default_scope = 'mmdet'
visualizer = dict(type='DetLocalVisualizer', vis_backends=[dict(type='LocalVisBackend')])

model = dict(
    backbone=dict(_delete_=True),
    neck=dict(norm_cfg=dict(type='BN')),
    roi_head=dict(
        bbox_roi_extractor=dict(type='icconv_mm.CPURoIExtractor', roi_layer=dict(sampling_ratio=2)),
        mask_roi_extractor=dict(type='icconv_mm.CPURoIExtractor', roi_layer=dict(sampling_ratio=2)),
    ),
    train_cfg=dict(
        rpn=dict(assigner=dict(ignore_iof_thr=0.5)),
        rcnn=dict(assigner=dict(ignore_iof_thr=0.5)),
    ),
)
default_hooks = dict(checkpoint=dict(save_best='coco/segm_mAP'))
