# Boxes, masks, segmentation maps and keypoints of the miniature set, on one image that is augmented once.
_base_ = ['./miniature.py', '../pipelines/multitask.py']

resize = dict(type='mmdet.Resize', scale=_base_.input_size, keep_ratio=True)  # as drawn; larger images shrink
pack_people = [
    dict(type='icconv_mm.WarpPeople'),
    dict(type='mmpose.GenerateTarget', encoder=_base_.codec),
    *_base_.pack.pose,
]
train_pipeline = [
    dict(type='LoadImageFromFile'),
    _base_.load,
    resize,
    dict(type='mmdet.Pad', size=_base_.input_size),
    dict(type='mmdet.RandomFlip', prob=0.5),
    dict(_base_.pack, pose=pack_people),
]
test_pipeline = [dict(type='LoadImageFromFile'), resize, _base_.load, _base_.pack]

train_dataloader = dict(
    dataset=dict(
        type='icconv_mm.MultiTaskDataset',
        datasets=dict(
            instance=dict(
                type='mmdet.CocoDataset',
                data_root=_base_.data_root,
                ann_file='annotations/instances_train.json',
                data_prefix=dict(img='train/'),
                metainfo=_base_.metainfo,
                filter_cfg=dict(filter_empty_gt=False),
            ),
            semantic=dict(
                type='mmseg.BaseSegDataset',
                data_root=_base_.data_root,
                data_prefix=dict(img_path='train', seg_map_path='semantic/train'),
                metainfo=_base_.semantic_metainfo,
            ),
            pose=dict(
                type='icconv_mm.BottomupCocoDataset',
                keep_empty=True,
                data_root=_base_.data_root,
                ann_file='annotations/person_keypoints_train.json',
                data_prefix=dict(img='train/'),
            ),
        ),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    sampler=dict(round_up=False),
    dataset=dict(
        type='icconv_mm.MultiTaskDataset',
        test_mode=True,
        datasets=dict(
            instance=dict(
                type='mmdet.CocoDataset',
                data_root=_base_.data_root,
                ann_file='annotations/instances_val.json',
                data_prefix=dict(img='val/'),
                metainfo=_base_.metainfo,
            ),
            semantic=dict(
                type='mmseg.BaseSegDataset',
                data_root=_base_.data_root,
                data_prefix=dict(img_path='val', seg_map_path='semantic/val'),
                metainfo=_base_.semantic_metainfo,
            ),
            pose=dict(
                type='icconv_mm.BottomupCocoDataset',
                data_root=_base_.data_root,
                ann_file='annotations/person_keypoints_val.json',
                data_prefix=dict(img='val/'),
            ),
        ),
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader

val_evaluator = [
    dict(
        type='icconv_mm.TaskMetric',
        task='instance',
        metric=dict(
            type='mmdet.CocoMetric',
            ann_file=_base_.data_root + 'annotations/instances_val.json',
            metric=['bbox', 'segm'],
        ),
    ),
    dict(type='icconv_mm.TaskMetric', task='semantic', metric=dict(type='mmseg.IoUMetric', iou_metrics=['mIoU'])),
    dict(
        type='icconv_mm.TaskMetric',
        task='pose',
        metric=dict(
            type='mmpose.CocoMetric',
            ann_file=_base_.data_root + 'annotations/person_keypoints_val.json',
            score_mode='bbox',
            nms_mode='none',
        ),
    ),
]
test_evaluator = val_evaluator
