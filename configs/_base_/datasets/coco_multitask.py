# COCO with every label it has: boxes and masks, the 171 classes of COCO-Stuff, keypoints. Training images are drawn to
# 0.5 to 2 times 640 pixels, cut or padded to 640 x 640 and flipped, with all their labels.
#   data/coco/{train2017,val2017}, annotations/{instances,person_keypoints}_{train,val}2017.json
#   data/coco/stuffthingmaps/{train2017,val2017}/*_labelTrainIds.png, as mmseg's tools/dataset_converters make them
_base_ = ['../values/coco_640x640.py', '../pipelines/multitask.py']

geometry = [
    dict(
        type='RandomResize',
        scale=_base_.input_size,
        ratio_range=(0.5, 2.0),
        keep_ratio=True,
        resize_type='mmdet.Resize',
    ),
    dict(type='mmdet.RandomCrop', crop_size=_base_.input_size, crop_type='absolute', allow_negative_crop=True),
    dict(type='mmdet.Pad', size=_base_.input_size),
    dict(type='mmdet.RandomFlip', prob=0.5),
]
pack_people = [
    dict(type='icconv_mm.WarpPeople'),
    dict(type='mmpose.GenerateTarget', encoder=_base_.codec),
    *_base_.pack.pose,
]
resize = dict(type='mmdet.Resize', scale=(1333, 640), keep_ratio=True)
train_pipeline = [dict(type='LoadImageFromFile'), _base_.load, *geometry, dict(_base_.pack, pose=pack_people)]
test_pipeline = [dict(type='LoadImageFromFile'), resize, _base_.load, _base_.pack]

train_instance = dict(
    type='mmdet.CocoDataset',
    data_root=_base_.data_root,
    ann_file='annotations/instances_train2017.json',
    data_prefix=dict(img='train2017/'),
    filter_cfg=dict(filter_empty_gt=False),
)
train_semantic = dict(
    type='mmseg.COCOStuffDataset',
    data_root=_base_.data_root,
    data_prefix=dict(img_path='train2017', seg_map_path='stuffthingmaps/train2017'),
)
train_pose = dict(
    type='icconv_mm.BottomupCocoDataset',
    keep_empty=True,
    data_root=_base_.data_root,
    ann_file='annotations/person_keypoints_train2017.json',
    data_prefix=dict(img='train2017/'),
)
val_instance = dict(
    type='mmdet.CocoDataset',
    data_root=_base_.data_root,
    ann_file='annotations/instances_val2017.json',
    data_prefix=dict(img='val2017/'),
)
val_semantic = dict(
    type='mmseg.COCOStuffDataset',
    data_root=_base_.data_root,
    data_prefix=dict(img_path='val2017', seg_map_path='stuffthingmaps/val2017'),
)
val_pose = dict(
    type='icconv_mm.BottomupCocoDataset',
    data_root=_base_.data_root,
    ann_file='annotations/person_keypoints_val2017.json',
    data_prefix=dict(img='val2017/'),
)

train_dataloader = dict(
    batch_size=4,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='icconv_mm.MultiTaskDataset',
        datasets=dict(instance=train_instance, semantic=train_semantic, pose=train_pose),
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
        type='icconv_mm.MultiTaskDataset',
        test_mode=True,
        datasets=dict(instance=val_instance, semantic=val_semantic, pose=val_pose),
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader

instance_metric = dict(
    type='icconv_mm.TaskMetric',
    task='instance',
    metric=dict(
        type='mmdet.CocoMetric',
        ann_file=_base_.data_root + 'annotations/instances_val2017.json',
        metric=['bbox', 'segm'],
    ),
)
semantic_metric = dict(
    type='icconv_mm.TaskMetric', task='semantic', metric=dict(type='mmseg.IoUMetric', iou_metrics=['mIoU'])
)
pose_metric = dict(
    type='icconv_mm.TaskMetric',
    task='pose',
    metric=dict(
        type='mmpose.CocoMetric',
        ann_file=_base_.data_root + 'annotations/person_keypoints_val2017.json',
        score_mode='bbox',
        nms_mode='none',
    ),
)
val_evaluator = [instance_metric, semantic_metric, pose_metric]
test_evaluator = val_evaluator
