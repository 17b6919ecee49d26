_base_ = ['../_base_/recipes/ae_8xb16-300e_crowdpose-640x640.py', '../_base_/backbones/ic_resnet50_k13.py']

model = dict(backbone=dict(**_base_.pretrained, out_indices=(3,)))
