# Semantic FPN for one's own images.
_base_ = ['mmseg::_base_/models/fpn_r50.py', './runtime.py']
default_scope = 'mmseg'

model = dict(
    pretrained=None,
    data_preprocessor=dict(size_divisor=32, test_cfg=dict(size_divisor=32)),
    backbone=dict(_delete_=True),
    neck=dict(norm_cfg=dict(type='BN')),
    decode_head=dict(norm_cfg=dict(type='BN')),
)
default_hooks = dict(checkpoint=dict(save_best='mIoU'))
