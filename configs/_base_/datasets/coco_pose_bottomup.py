# COCO keypoints, whole images at 640 x 640, as mmpose 0.x trained and tested associative embedding.
_base_ = '../values/coco_640x640.py'
data_mode = 'bottomup'
dataset_type = 'icconv_mm.BottomupCocoDataset'

train_pipeline = [
    dict(type='LoadImage'),
    dict(
        type='icconv_mm.BottomupAffine',
        input_size=_base_.input_size,
        rotate_factor=30,
        scale_factor=(0.75, 1.5),
        shift_factor=0.2,  # mmpose 0.x: translation 40, in units of 1/200 of the scaled image
        scale_type='short',
    ),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='GenerateTarget', encoder=_base_.codec),
    dict(type='icconv_mm.PackMultiScaleInputs'),
]
test_pipeline = [
    dict(type='LoadImage'),
    dict(type='icconv_mm.MultiScaleResize', input_size=_base_.input_size, scales=[1]),
    dict(type='icconv_mm.PackMultiScaleInputs'),
]
# several scales, as published; in other configs --cfg-options test_dataloader.dataset.pipeline.1.scales="[2,1,0.5]"
ms_test_pipeline = [test_pipeline[0], dict(test_pipeline[1], scales=[2, 1, 0.5]), test_pipeline[2]]

train_dataloader = dict(
    batch_size=16,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type=dataset_type,
        data_root=_base_.data_root,
        data_mode=data_mode,
        ann_file='annotations/person_keypoints_train2017.json',
        data_prefix=dict(img='train2017/'),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False, round_up=False),
    dataset=dict(
        type=dataset_type,
        data_root=_base_.data_root,
        data_mode=data_mode,
        ann_file='annotations/person_keypoints_val2017.json',
        data_prefix=dict(img='val2017/'),
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(
    type='CocoMetric',
    ann_file=_base_.data_root + 'annotations/person_keypoints_val2017.json',
    score_mode='bbox',
    nms_mode='none',
)
test_evaluator = val_evaluator
