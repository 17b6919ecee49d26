_base_ = [
    'mmseg::pspnet/pspnet_r101-d8_4xb4-80k_ade20k-512x512.py',
    '../_base_/backbones/ic_resnet50_k9_seg.py',
    '../_base_/necks/ufp_fpt.py',
]
custom_imports = dict(imports=['icconv_mm'], allow_failed_imports=False)

# Output stride 8: the last two stages are dilated instead of strided. The head reads all levels at once.
model = dict(
    pretrained=None,
    backbone=dict(
        _delete_=True,
        **_base_.backbone,
        strides=(1, 2, 1, 1),
        dilations=(1, 1, 2, 4),
        contract_dilation=True,
        norm_cfg=dict(type='SyncBN', requires_grad=True),
        init_cfg=dict(type='Pretrained', checkpoint='checkpoints/ic_resnet50_k9_seg_imagenet.pth', prefix='backbone.'),
    ),
    neck=_base_.neck,
    decode_head=dict(
        _delete_=True,
        type='FCNHead',
        in_channels=[256, 256, 256, 256],
        in_index=[0, 1, 2, 3],
        input_transform='resize_concat',
        channels=256,
        num_convs=1,
        concat_input=False,
        dropout_ratio=0.1,
        num_classes=150,
        norm_cfg=dict(type='GN', num_groups=32),
        align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0),
    ),
    auxiliary_head=None,
)
