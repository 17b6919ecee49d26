_base_ = ['../_base_/recipes/segformer-head_8xb2-160k_ade20k-512x512.py', '../_base_/backbones/ic_resnet50_k9_seg.py']

model = dict(backbone=_base_.pretrained)
