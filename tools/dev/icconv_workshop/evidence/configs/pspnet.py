# PSPNet, narrow: a head that pools, on three stages of a ResNet-18 at output stride 8.
_base_ = '../../../../../configs/semantic_segmentation/pyconvsegnet_pyconv-r18_miniature.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='icconv_mm.ICResNet',
        depth=18,
        pattern='dense',
        base_channels=16,
        stem_channels=16,
        num_stages=3,
        strides=(1, 2, 1),
        dilations=(1, 1, 2),
        out_indices=(0, 1, 2),
    ),
    decode_head=dict(
        _delete_=True,
        type='PSPHead',
        in_channels=64,
        in_index=2,
        channels=32,
        dropout_ratio=0.0,
        num_classes=7,
        norm_cfg=dict(type='BN'),
        align_corners=True,
        loss_decode=_base_.model.decode_head.loss_decode,
    ),
    auxiliary_head=dict(in_channels=32, channels=32),
)
