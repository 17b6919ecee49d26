_base_ = ['mmseg::upernet/upernet_r50_4xb4-160k_ade20k-512x512.py', '../_base_/backbones/ic_resnet50_k9_seg.py']
custom_imports = dict(imports=['icconv_mm'], allow_failed_imports=False)

model = dict(
    pretrained=None,
    backbone=dict(_delete_=True, **_base_.pretrained, norm_cfg=dict(type='SyncBN', requires_grad=True)),
)
