# Bottom-up pose, narrow, on two stages of a ResNet-18.
_base_ = '../../../../../configs/pose/ae_ic-r18_miniature.py'

model = dict(
    backbone=dict(
        pattern='dense',
        base_channels=32,
        stem_channels=32,
        num_stages=2,
        strides=(1, 2),
        dilations=(1, 1),
        out_indices=(0, 1),
    ),
    neck=dict(_delete_=True, type='FPN', in_channels=[32, 64], out_channels=32, num_outs=2),
    head=dict(in_channels=32, deconv_out_channels=(32,)),
)
