_base_ = ['../_base_/recipes/ae_8xb16-300e_coco-640x640.py', '../_base_/backbones/resnet101.py']

model = dict(backbone=dict(**_base_.pretrained, out_indices=(3,)))
optim_wrapper = dict(optimizer=dict(lr=5e-4))
