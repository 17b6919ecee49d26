# A classifier of the objects, each in the middle of a crop of 64 pixels, by a ResNet-50 of a quarter of the width.
_base_ = ['../../../../../configs/_base_/datasets/miniature.py', '../../../../../configs/_base_/schedules/miniature.py']
custom_imports = dict(imports=['icconv_mm'], allow_failed_imports=False)
default_scope = 'mmpretrain'
visualizer = dict(type='UniversalVisualizer', vis_backends=[dict(type='LocalVisBackend')])

model = dict(
    type='ImageClassifier',
    backbone=dict(type='icconv_mm.ResNet', depth=50, base_channels=16, stem_channels=16, out_indices=(3,)),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead', num_classes=6, in_channels=512, loss=dict(type='CrossEntropyLoss', loss_weight=1.0)
    ),
)
data_preprocessor = dict(num_classes=6, mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
test_pipeline = [train_pipeline[0], train_pipeline[2]]
train_dataloader = dict(
    batch_size=32,
    dataset=dict(
        type='CustomDataset',
        data_root=_base_.data_root,
        data_prefix='crops/train',
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=32, dataset={**train_dataloader['dataset'], 'data_prefix': 'crops/val', 'pipeline': test_pipeline}
)
test_dataloader = val_dataloader
val_evaluator = dict(type='Accuracy', topk=(1,))
test_evaluator = val_evaluator
default_hooks = _base_.iteration_hooks
log_processor = _base_.iteration_log
