# RetinaNet, narrow, on two stages of a ResNet-18 and a pyramid of strides 4 to 32. Two stages see about as much of a
# image of 128 pixels (99) as a whole ResNet-50 sees of one of 1333 x 800 (483): reach counts as it does there.
_base_ = '../../../../../configs/detection/retinanet_ic-r18_fpn-sepc_miniature.py'

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
    neck=dict(
        _delete_=True,
        type='FPN',
        in_channels=[32, 64],
        out_channels=32,
        num_outs=4,
        add_extra_convs='on_output',
        norm_cfg=dict(type='BN'),
    ),
    bbox_head=dict(
        _delete_=True,
        type='RetinaHead',
        num_classes=6,
        in_channels=32,
        feat_channels=32,
        stacked_convs=1,
        norm_cfg=dict(type='BN'),
        anchor_generator=dict(
            type='AnchorGenerator',
            octave_base_scale=2,
            scales_per_octave=3,
            ratios=[0.5, 1.0, 2.0],
            strides=[4, 8, 16, 32],
        ),
        bbox_coder=dict(type='DeltaXYWHBBoxCoder'),
        loss_cls=dict(type='FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0),
        loss_bbox=dict(type='SmoothL1Loss', beta=0.11, loss_weight=1.0),
    ),
    test_cfg=dict(nms_pre=300, max_per_img=50),
)
