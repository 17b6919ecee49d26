_base_ = ['../_base_/recipes/pyconvsegnet_8xb2-100e_ade20k-473x473.py', '../_base_/backbones/resnet50.py']

model = dict(
    backbone=dict(**_base_.pretrained, output_stride=8, norm_cfg=_base_.norm_cfg),
)
