# Plain ImageNet training of a classifier of 2048 channels. A config that inherits it adds the backbone.
_base_ = [
    'mmpretrain::_base_/models/resnet50.py',
    'mmpretrain::_base_/datasets/imagenet_bs32.py',
    'mmpretrain::_base_/default_runtime.py',
    '../schedules/pyconv_imagenet_90e.py',
]
custom_imports = dict(imports=['icconv_mm'], allow_failed_imports=False)
