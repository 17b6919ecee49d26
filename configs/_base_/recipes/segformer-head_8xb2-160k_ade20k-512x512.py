# SegFormer's head on ADE20K with mmseg's data and schedule. A config that inherits it adds the backbone, whose stages
# have the channels of a ResNet-50.
_base_ = 'mmseg::segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py'
custom_imports = dict(imports=['icconv_mm'], allow_failed_imports=False)

model = dict(
    # not _base_.norm_cfg, which has mmseg's scope
    backbone=dict(_delete_=True, norm_cfg=dict(type='SyncBN', requires_grad=True)),
    decode_head=dict(in_channels=[256, 512, 1024, 2048]),
)
