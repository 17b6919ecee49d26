# A narrow supernet on the miniature set at 96 pixels: tools/search_pipeline.py searches its dilations and retrains the
# result. Ten trainings must fit into minutes on two CPU cores.
_base_ = './fpn_ic-r18_miniature.py'

model = dict(
    backbone=dict(pattern=None, supernet_d_max=2, base_channels=32, stem_channels=32, zero_init_residual=False),
    neck=dict(in_channels=[32, 64, 128, 256], out_channels=32),
    decode_head=dict(in_channels=[32, 32, 32, 32], channels=32),
)

small = dict(type='Resize', scale=(96, 96), keep_ratio=True)
train_dataloader = dict(
    batch_size=16, dataset=dict(pipeline=[*_base_.train_pipeline[:2], small, *_base_.train_pipeline[3:]])
)
val_dataloader = dict(batch_size=16, dataset=dict(pipeline=[_base_.test_pipeline[0], small, *_base_.test_pipeline[2:]]))
test_dataloader = val_dataloader

max_iters, warm_up = 300, 30
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
param_scheduler = [
    dict(_base_.param_scheduler[0], end=warm_up),
    dict(_base_.param_scheduler[1], begin=warm_up, end=max_iters, T_max=max_iters - warm_up),
]
