# Augmented ImageNet training of a classifier of 2048 channels. A config that inherits it adds the backbone.
_base_ = [
    'mmpretrain::_base_/models/resnet50.py',
    'mmpretrain::_base_/datasets/imagenet_bs32.py',
    'mmpretrain::_base_/default_runtime.py',
    '../schedules/pyconv_imagenet_cutmix_300e.py',
]
custom_imports = dict(imports=['icconv_mm'], allow_failed_imports=False)

model = dict(
    head=dict(
        type='icconv_mm.DropoutLinearClsHead',
        dropout_ratio=0.2,
        loss=dict(use_soft=True),  # CutMix gives a share to each of two classes
    ),
    train_cfg=dict(augments=dict(type='CutMix', alpha=1.0)),
)
train_dataloader = dict(batch_size=128)
