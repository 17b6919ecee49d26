# The segmentation form of FPT on the miniature set: four levels of stride 8, small windows.
_base_ = './fpn_ic-r18_miniature.py'

norm_cfg = dict(type='GN', num_groups=8)
model = dict(
    backbone=dict(output_stride=8, contract_dilation=True),
    neck=[
        dict(
            type='icconv_mm.UnscathedPyramid',
            in_channels=512,
            out_channels=32,
            kernel_sizes=(1, 7, 15),
            norm_cfg=norm_cfg,
        ),
        dict(
            type='icconv_mm.FPT',
            in_channels=[32, 32, 32],
            out_channels=32,
            strides=[8, 8, 8],
            window=5,
            drop_prob=0.0,
            norm_cfg=norm_cfg,
        ),
    ],
    decode_head=dict(
        _delete_=True,
        type='FCNHead',
        in_channels=[32, 32, 32],
        in_index=[0, 1, 2],
        input_transform='resize_concat',
        channels=64,
        num_convs=1,
        concat_input=False,
        dropout_ratio=0.0,
        num_classes=7,
        norm_cfg=norm_cfg,
        align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0),
    ),
)
