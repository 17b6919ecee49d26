_base_ = ['../_base_/recipes/pyconvsegnet_8xb2-100e_ade20k-473x473.py', '../_base_/backbones/ic_resnet50_k9_seg.py']

model = dict(backbone=_base_.pretrained)
