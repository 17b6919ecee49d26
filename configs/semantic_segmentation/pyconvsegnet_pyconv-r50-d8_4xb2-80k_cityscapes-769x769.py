_base_ = ['../_base_/recipes/pyconvsegnet_4xb2-80k_cityscapes-769x769.py', '../_base_/backbones/pyconv_resnet50.py']

model = dict(backbone=_base_.pretrained)
