# Disjoint sets: COCO is labelled for boxes, masks and poses, ADE20K for its 150 semantic classes. Each batch has three
# images of COCO and one of ADE20K.
_base_ = './multitask_ic-r50-k9_fpn_8xb4-50e_coco-640x640.py'

model = dict(tasks=dict(semantic=dict(decode_head=dict(num_classes=150))))

ade20k = dict(type='mmseg.ADE20KDataset', data_root='data/ade/ADEChallengeData2016')
train_ade20k = dict(**ade20k, data_prefix=dict(img_path='images/training', seg_map_path='annotations/training'))
val_ade20k = dict(**ade20k, data_prefix=dict(img_path='images/validation', seg_map_path='annotations/validation'))
train_dataloader = dict(
    sampler=dict(_delete_=True, type='mmdet.MultiSourceSampler', batch_size=4, source_ratio=[3, 1]),
    dataset=dict(
        _delete_=True,
        type='icconv_mm.MultiTaskConcatDataset',
        datasets=[
            dict(type='icconv_mm.MultiTaskDataset', datasets=datasets, pipeline=_base_.train_pipeline)
            for datasets in (dict(instance=_base_.train_instance, pose=_base_.train_pose), dict(semantic=train_ade20k))
        ],
    ),
)
val_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='icconv_mm.MultiTaskConcatDataset',
        datasets=[
            dict(type='icconv_mm.MultiTaskDataset', test_mode=True, datasets=datasets, pipeline=_base_.test_pipeline)
            for datasets in (dict(instance=_base_.val_instance, pose=_base_.val_pose), dict(semantic=val_ade20k))
        ],
    )
)
test_dataloader = val_dataloader

max_iters = 160000
train_cfg = dict(_delete_=True, type='IterBasedTrainLoop', max_iters=max_iters, val_interval=16000)
param_scheduler = [
    _base_.param_scheduler[0],
    dict(type='MultiStepLR', by_epoch=False, begin=0, end=max_iters, milestones=[128000, 150000], gamma=0.1),
]
default_hooks = dict(logger=dict(log_metric_by_epoch=False), checkpoint=dict(by_epoch=False, interval=16000))
log_processor = dict(by_epoch=False)
