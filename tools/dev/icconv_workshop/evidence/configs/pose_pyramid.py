# Bottom-up pose on the pyramid of the network for all tasks.
_base_ = './pose.py'

model = dict(
    backbone=dict(
        base_channels=16,
        stem_channels=16,
        num_stages=4,
        strides=(1, 2, 2, 2),
        dilations=(1, 1, 1, 1),
        out_indices=(0, 1, 2, 3),
    ),
    neck=dict(in_channels=[16, 32, 64, 128], num_outs=4, norm_cfg=dict(type='BN')),
)
