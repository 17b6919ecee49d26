_base_ = ['mmdet::mask2former/mask2former_r50_8xb2-lsj-50e_coco.py', '../_base_/backbones/ic_resnet50_k9_seg.py']
custom_imports = dict(imports=['icconv_mm'], allow_failed_imports=False)

model = dict(
    backbone=dict(
        _delete_=True,
        **_base_.pretrained,
        norm_cfg=dict(type='BN', requires_grad=False),
        norm_eval=True,
    )
)
