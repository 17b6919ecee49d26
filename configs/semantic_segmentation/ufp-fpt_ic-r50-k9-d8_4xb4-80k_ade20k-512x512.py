_base_ = [
    'mmseg::pspnet/pspnet_r101-d8_4xb4-80k_ade20k-512x512.py',
    '../_base_/backbones/ic_resnet50_k9_seg.py',
    '../_base_/necks/ufp_fpt.py',
]
custom_imports = dict(imports=['icconv_mm'], allow_failed_imports=False)

model = dict(
    pretrained=None,
    backbone=dict(_delete_=True, **_base_.backbone, **_base_.stride_8, init_cfg=_base_.weights),
    neck=_base_.neck,
    decode_head=dict(_delete_=True, **_base_.all_levels_head, num_classes=150),
    auxiliary_head=None,
)
