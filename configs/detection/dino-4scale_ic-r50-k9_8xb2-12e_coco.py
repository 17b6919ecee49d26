_base_ = ['mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py', '../_base_/backbones/ic_resnet50_k9.py']
custom_imports = dict(imports=['icconv_mm'], allow_failed_imports=False)

model = dict(
    backbone=dict(
        _delete_=True, **_base_.fine_tuned, out_indices=(1, 2, 3), norm_cfg=dict(type='BN', requires_grad=False)
    )
)
