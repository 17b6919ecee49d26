# Plain ImageNet training of a classifier of 2048 channels. A config that inherits it adds the backbone.
_base_ = [
    'mmpretrain::_base_/models/resnet50.py',
    'mmpretrain::_base_/datasets/imagenet_bs32.py',
    'mmpretrain::_base_/default_runtime.py',
    'mmpretrain::_base_/schedules/imagenet_bs256.py',
]
custom_imports = dict(imports=['icconv_mm'], allow_failed_imports=False)

model = dict(backbone=dict(_delete_=True, out_indices=(3,), zero_init_residual=False))
param_scheduler = dict(milestones=[30, 60, 80])
train_cfg = dict(max_epochs=90)
