_base_ = [
    '../_base_/recipes/pyconv_8xb128-cutmix-300e_in1k_320px-test.py',
    '../_base_/backbones/pyconv_resnet50.py',
]

model = dict(backbone=_base_.backbone)
