# 12 images per GPU, as its authors trained this depth.
_base_ = ['../_base_/recipes/ae_8xb16-300e_coco-640x640.py', '../_base_/backbones/ic_resnet101_k13.py']

model = dict(backbone=dict(**_base_.pretrained, out_indices=(3,)))
train_dataloader = dict(batch_size=12)
optim_wrapper = dict(optimizer=dict(lr=5e-4))
auto_scale_lr = dict(base_batch_size=96)
