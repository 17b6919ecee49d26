_base_ = ['../_base_/recipes/pyconv_8xb32-90e_in1k.py', '../_base_/backbones/pyconv_hgresnet50.py']

model = dict(backbone=_base_.backbone)
