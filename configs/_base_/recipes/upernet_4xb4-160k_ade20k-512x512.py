# UPerNet on ADE20K with mmseg's data and schedule. A config that inherits it adds the backbone.
_base_ = 'mmseg::upernet/upernet_r50_4xb4-160k_ade20k-512x512.py'
custom_imports = dict(imports=['icconv_mm'], allow_failed_imports=False)

# not _base_.norm_cfg, which has mmseg's scope
model = dict(pretrained=None, backbone=dict(_delete_=True, norm_cfg=dict(type='SyncBN', requires_grad=True)))
