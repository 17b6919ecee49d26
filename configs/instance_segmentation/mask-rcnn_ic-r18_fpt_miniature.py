# Mask R-CNN with FPT in the place of the FPN, narrow, on the miniature set.
_base_ = './mask-rcnn_ic-r18_fpn_miniature.py'

model = dict(
    neck=dict(
        _delete_=True,
        type='icconv_mm.FPT',
        in_channels=[64, 128, 256, 512],
        out_channels=64,
        drop_prob=0.0,  # a few hundred iterations from scratch do not overfit
        norm_cfg=dict(type='GN', num_groups=8),
    ),
)

# all of it from random weights: two thirds of this are not enough to be sure of a box AP50 of 0.60
max_iters, warm_up = 420, 40
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
param_scheduler = [
    dict(_base_.param_scheduler[0], end=warm_up),
    dict(_base_.param_scheduler[1], begin=warm_up, end=max_iters, T_max=max_iters - warm_up),
]
