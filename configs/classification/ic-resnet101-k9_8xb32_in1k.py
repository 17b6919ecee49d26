_base_ = ['mmpretrain::resnet/resnet101_8xb32_in1k.py', '../_base_/backbones/ic_resnet101_k9.py']
custom_imports = dict(imports=['icconv_mm'], allow_failed_imports=False)

model = dict(backbone=dict(_delete_=True, **_base_.backbone, out_indices=(3,)))
