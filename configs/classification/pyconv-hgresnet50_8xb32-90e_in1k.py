_base_ = [
    'mmpretrain::_base_/models/resnet50.py',
    'mmpretrain::_base_/datasets/imagenet_bs32.py',
    'mmpretrain::_base_/default_runtime.py',
    '../_base_/backbones/pyconv_hgresnet50.py',
    '../_base_/schedules/pyconv_imagenet_90e.py',
]
custom_imports = dict(imports=['icconv_mm'], allow_failed_imports=False)

model = dict(
    backbone=dict(_delete_=True, **_base_.backbone, out_indices=(3,)),
)
