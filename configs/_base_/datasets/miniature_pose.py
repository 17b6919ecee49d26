# People of the miniature set with 17 COCO keypoints, for bottom-up pose.
_base_ = './miniature.py'
data_mode = 'bottomup'

train_pipeline = [
    dict(type='LoadImage'),
    dict(
        type='icconv_mm.BottomupAffine',
        input_size=_base_.input_size,
        rotate_factor=0,
        scale_factor=(1.0, 1.0),
        shift_factor=0,
    ),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='GenerateTarget', encoder=_base_.codec),
    dict(type='icconv_mm.PackMultiScaleInputs'),
]
test_pipeline = [
    dict(type='LoadImage'),
    dict(type='icconv_mm.MultiScaleResize', input_size=_base_.input_size, scales=[1], size_divisor=32),
    dict(type='icconv_mm.PackMultiScaleInputs'),
]

train_dataloader = dict(
    dataset=dict(
        type='icconv_mm.BottomupCocoDataset',
        keep_empty=True,
        data_root=_base_.data_root,
        data_mode=data_mode,
        ann_file='annotations/person_keypoints_train.json',
        data_prefix=dict(img='train/'),
        pipeline=train_pipeline,
    )
)
val_dataloader = dict(
    batch_size=1,
    sampler=dict(round_up=False),
    dataset=dict(
        type='icconv_mm.BottomupCocoDataset',
        data_root=_base_.data_root,
        data_mode=data_mode,
        ann_file='annotations/person_keypoints_val.json',
        data_prefix=dict(img='val/'),
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(
    type='CocoMetric',
    ann_file=_base_.data_root + 'annotations/person_keypoints_val.json',
    score_mode='bbox',
    nms_mode='none',
)
test_evaluator = val_evaluator
