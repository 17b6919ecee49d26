# Mask R-CNN with FPT in the place of the FPN, as its authors trained it. A config that inherits it adds the backbone.
_base_ = './faster-rcnn_fpt-gn_ms-2x_coco.py'

model = dict(
    type='MaskRCNN',
    data_preprocessor=dict(pad_mask=True),
    roi_head=dict(
        mask_roi_extractor=dict(
            type='GenericRoIExtractor',
            aggregation='concat',
            out_channels=1024,
            roi_layer=dict(type='RoIAlign', output_size=14, sampling_ratio=2),
            featmap_strides=[4, 8, 16, 32],
        ),
        mask_head=dict(type='icconv_mm.PANetMaskHead', num_classes=80),
    ),
    train_cfg=dict(rcnn=dict(mask_size=28)),
    test_cfg=dict(rcnn=dict(mask_thr_binary=0.5)),
)
train_dataloader = dict(dataset=dict(pipeline=_base_.fpt_mask_pipeline))
val_evaluator = dict(metric=['bbox', 'segm'])
test_evaluator = val_evaluator

max_iters = 180000
train_cfg = dict(max_iters=max_iters)
param_scheduler = [
    _base_.param_scheduler[0],
    dict(_base_.param_scheduler[1], end=max_iters, milestones=[120000, 160000]),
]
