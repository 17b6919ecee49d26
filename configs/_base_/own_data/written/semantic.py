metainfo = dict(classes=classes, palette=palette)
visualizer = dict(type='icconv_mm.SegVisualizer', vis_backends=[dict(type='LocalVisBackend')], **metainfo)
model = dict(
    backbone=backbone,
    neck=dict(in_channels=levels, out_channels=width),
    decode_head=dict(
        in_channels=[width] * 4,
        channels=width // 2,
        num_classes=num_classes,
        loss_decode=[
            dict(type='icconv_mm.WeightedCrossEntropyLoss', class_weight=class_weight),
            dict(type='icconv_mm.LovaszSoftmaxLoss', loss_weight=0.5),
        ],
    ),
)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='RandomResize', scale=(size, size), ratio_range=(0.75, 1.5), keep_ratio=True),
    dict(type='RandomCrop', crop_size=crop[::-1], cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(size, size), keep_ratio=True),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
data = dict(type='icconv_mm.ListedSegDataset', data_prefix=dict(img_path=images), metainfo=metainfo)
train_set = dict(data, ann_file=train_ann_file, pipeline=train_pipeline)
val_set = dict(data, ann_file=val_ann_file, test_mode=True, pipeline=test_pipeline)
test_set = dict(val_set, ann_file=test_ann_file)
val_batch_size = 1
val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator
