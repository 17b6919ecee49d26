# One network for what one's own images are labelled for: the heads of the configs for a single task, by its name.
_base_ = ['../models/multitask.py', './runtime.py']
default_scope = 'mmengine'
visualizer = dict(type='icconv_mm.MultiTaskVisualizer', vis_backends=[dict(type='LocalVisBackend')])

model = dict(neck=dict(type='mmdet.FPN', num_outs=5, norm_cfg=dict(type='BN')))

instance = _base_.model.tasks.instance
for extractor in (instance.roi_head.bbox_roi_extractor, instance.roi_head.mask_roi_extractor):
    extractor.update(type='icconv_mm.CPURoIExtractor')
    extractor.roi_layer.update(sampling_ratio=2)
instance.train_cfg.rpn.assigner.ignore_iof_thr = instance.train_cfg.rcnn.assigner.ignore_iof_thr = 0.5
heads = dict(
    instance=instance,
    detection=dict(
        type='mmdet.FasterRCNN',
        rpn_head=instance.rpn_head,
        roi_head=dict(
            type='StandardRoIHead',
            bbox_roi_extractor=instance.roi_head.bbox_roi_extractor,
            bbox_head=instance.roi_head.bbox_head,
        ),
        train_cfg=instance.train_cfg,
        test_cfg=instance.test_cfg,
    ),
    semantic=_base_.model.tasks.semantic,
    pose=_base_.model.tasks.pose,
)
heads['semantic']['decode_head'].update(
    norm_cfg=dict(type='BN'),
    loss_decode=[
        dict(type='CrossEntropyLoss', loss_name='loss_ce', avg_non_ignore=True),
        dict(type='icconv_mm.LovaszSoftmaxLoss', loss_weight=0.5),
    ],
)
heads['pose']['head'].update(
    keypoint_loss=dict(type='icconv_mm.MaskedHeatmapLoss', peak_weight=20.0),
    tag_loss=dict(type='icconv_mm.TagLoss', push_weight=0.02, pull_weight=0.005, kind='exp'),
    init_cfg=[dict(type='Normal', layer='Conv2d', std=0.02)],
)
loss_weights = dict(detection=1.0, instance=1.0, semantic=2.0, pose=200.0)
