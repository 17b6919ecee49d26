# CrowdPose (14 joints), whole images at 640 x 640.
data_root = 'data/crowdpose/'
data_mode = 'bottomup'
dataset_type = 'icconv_mm.BottomupCrowdPoseDataset'
input_size = (640, 640)

train_pipeline = [
    dict(type='LoadImage'),
    dict(
        type='icconv_mm.BottomupAffine',
        input_size=input_size,
        rotate_factor=30,
        scale_factor=(0.75, 1.5),
        shift_factor=0.2,
        scale_type='short',
    ),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(
        type='GenerateTarget',
        encoder=dict(type='icconv_mm.AECodec', input_size=input_size, heatmap_size=(160, 160), sigma=2),
    ),
    dict(type='icconv_mm.PackPyramidInputs'),
]
test_pipeline = [
    dict(type='LoadImage'),
    dict(type='icconv_mm.PyramidResize', input_size=input_size, scales=[1]),
    dict(type='icconv_mm.PackPyramidInputs'),
]

train_dataloader = dict(
    batch_size=16,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_mode=data_mode,
        ann_file='annotations/mmpose_crowdpose_trainval.json',
        data_prefix=dict(img='images/'),
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
        data_root=data_root,
        data_mode=data_mode,
        ann_file='annotations/mmpose_crowdpose_test.json',
        data_prefix=dict(img='images/'),
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(
    type='CocoMetric',
    ann_file=data_root + 'annotations/mmpose_crowdpose_test.json',
    use_area=False,
    iou_type='keypoints_crowd',
    prefix='crowdpose',
    score_mode='bbox',
    nms_mode='none',
)
test_evaluator = val_evaluator
