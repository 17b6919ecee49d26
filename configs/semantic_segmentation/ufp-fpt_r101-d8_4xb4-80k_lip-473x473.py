_base_ = [
    '../_base_/recipes/ufp-fpt_80k.py',
    '../_base_/datasets/lip_473x473.py',
    '../_base_/backbones/resnet101.py',
]

model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    backbone=_base_.pretrained,
    decode_head=dict(num_classes=20),
)
