# Segmentation maps of the miniature set: background and the six classes.
_base_ = './miniature.py'
metainfo = _base_.semantic_metainfo

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='Resize', scale=_base_.input_size, keep_ratio=True),  # as drawn; larger images shrink
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=_base_.input_size, keep_ratio=True),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]

train_dataloader = dict(
    dataset=dict(
        type='BaseSegDataset',
        data_root=_base_.data_root,
        data_prefix=dict(img_path='train', seg_map_path='semantic/train'),
        metainfo=metainfo,
        pipeline=train_pipeline,
    )
)
val_dataloader = dict(
    dataset=dict(
        type='BaseSegDataset',
        data_root=_base_.data_root,
        data_prefix=dict(img_path='val', seg_map_path='semantic/val'),
        metainfo=metainfo,
        test_mode=True,
        pipeline=test_pipeline,
    )
)
test_dataloader = val_dataloader

val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator
