# Semantic FPN for one's own pictures. The Lovasz loss weighs all classes alike, rare ones as well.
_base_ = ['mmseg::_base_/models/fpn_r50.py', './runtime.py']
default_scope = 'mmseg'

model = dict(
    pretrained=None,
    data_preprocessor=dict(size_divisor=32, test_cfg=dict(size_divisor=32)),
    backbone=dict(_delete_=True),
    neck=dict(norm_cfg=dict(type='BN')),
    decode_head=dict(
        norm_cfg=dict(type='BN'),
        loss_decode=[
            dict(type='CrossEntropyLoss', loss_name='loss_ce', avg_non_ignore=True),
            dict(type='LovaszLoss', loss_name='loss_lovasz', reduction='none', loss_weight=0.5),
        ],
    ),
)
default_hooks = dict(checkpoint=dict(save_best='mIoU'))
