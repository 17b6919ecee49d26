_base_ = ['../_base_/recipes/ae_8xb16-300e_coco-640x640.py', '../_base_/backbones/pyconv_resnet50.py']

model = dict(backbone=dict(**_base_.pretrained, out_indices=(3,)))
