# A narrow supernet on the miniature set: tools/search_pipeline.py searches its dilations and retrains the result.
_base_ = ['./fpn_ic-r18_miniature.py']

model = dict(
    backbone=dict(pattern=None, supernet_d_max=2, base_channels=32),
    neck=dict(in_channels=[32, 64, 128, 256], out_channels=32),
    decode_head=dict(in_channels=[32, 32, 32, 32], channels=32))

# ten trainings in about ten minutes on two CPU cores
train_dataloader = dict(batch_size=4)
train_cfg = dict(max_iters=200, val_interval=200)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=20),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=20, end=200, T_max=180, eta_min_ratio=0.01),
]
