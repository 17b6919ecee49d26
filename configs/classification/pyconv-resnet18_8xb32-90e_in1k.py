_base_ = ['../_base_/recipes/pyconv_8xb32-90e_in1k.py', '../_base_/backbones/pyconv_resnet18.py']

model = dict(backbone=_base_.backbone, head=dict(in_channels=512))
