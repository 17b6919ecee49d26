data_preprocessor = dict(num_classes=num_classes)
model = dict(backbone=dict(backbone, out_indices=(3,)), head=dict(in_channels=levels[-1], num_classes=num_classes))

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomResizedCrop', scale=size, crop_ratio_range=(0.4, 1.0)),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='ResizeEdge', scale=size * 8 // 7, edge='short'),
    dict(type='CenterCrop', crop_size=size),
    dict(type='PackInputs'),
]
data = dict(type='CustomDataset', data_prefix=images, metainfo=dict(classes=classes))
train_set = dict(data, ann_file=train_ann_file, pipeline=train_pipeline)
val_set = dict(data, ann_file=val_ann_file, pipeline=test_pipeline)
test_set = dict(val_set, ann_file=test_ann_file)
val_batch_size = batch_size
val_evaluator = [dict(type='Accuracy', topk=(1,)), dict(type='SingleLabelMetric', average=None)]
test_evaluator = val_evaluator
