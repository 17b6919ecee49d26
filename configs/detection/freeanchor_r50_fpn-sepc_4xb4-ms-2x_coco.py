# Twice as long, at short sides of 640 to 800.
_base_ = './freeanchor_r50_fpn-sepc_4xb4-1x_coco.py'

train_pipeline = [
    *_base_.train_pipeline[:2],
    dict(type='RandomResize', scale=[(1333, 640), (1333, 800)], keep_ratio=True),
    *_base_.train_pipeline[3:],
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
train_cfg = dict(max_epochs=24)
param_scheduler = [_base_.sepc_warm_up, dict(_base_.param_scheduler[1], end=24, milestones=[16, 22])]
