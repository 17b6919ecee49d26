# A narrow supernet on the miniature set at 96 pixels: tools/search_pipeline.py searches its dilations and retrains the
# result. Ten trainings must fit into minutes on two CPU cores.
_base_ = ['./fpn_ic-r18_miniature.py']

model = dict(
    backbone=dict(pattern=None, supernet_d_max=2, base_channels=32, zero_init_residual=False),
    neck=dict(in_channels=[32, 64, 128, 256], out_channels=32),
    decode_head=dict(in_channels=[32, 32, 32, 32], channels=32),
)

small = dict(type='Resize', scale=(96, 96), keep_ratio=True)
train_dataloader = dict(
    batch_size=16,
    dataset=dict(
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='LoadAnnotations'),
            small,
            dict(type='RandomFlip', prob=0.5),
            dict(type='PackSegInputs'),
        ]
    ),
)
val_dataloader = dict(
    batch_size=16,
    dataset=dict(
        pipeline=[
            dict(type='LoadImageFromFile'),
            small,
            dict(type='LoadAnnotations'),
            dict(type='PackSegInputs'),
        ]
    ),
)
test_dataloader = val_dataloader

train_cfg = dict(max_iters=300, val_interval=300)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=30),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=30, end=300, T_max=270, eta_min_ratio=0.01),
]
