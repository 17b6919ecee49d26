_base_ = [
    'mmseg::pspnet/pspnet_r50-d8_4xb4-80k_ade20k-512x512.py',
    '../_base_/backbones/ic_resnet50_k9_seg.py',
]
custom_imports = dict(imports=['icconv_mm'], allow_failed_imports=False)

# Output stride 8: the last two stages are dilated instead of strided, which multiplies the dilations of the pattern.
model = dict(
    pretrained=None,
    backbone=dict(
        _delete_=True,
        **_base_.pretrained,
        output_stride=8,
        contract_dilation=True,
        # not _base_.norm_cfg, which has mmseg's scope
        norm_cfg=dict(type='SyncBN', requires_grad=True),
    ),
)
