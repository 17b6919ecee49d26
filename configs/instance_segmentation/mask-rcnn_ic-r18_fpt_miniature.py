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
