_base_ = [
    '../_base_/recipes/ufp-fpt_80k.py',
    'mmseg::_base_/datasets/ade20k.py',
    '../_base_/backbones/ic_resnet50_k9_seg.py',
]

model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    backbone=_base_.pretrained,
    decode_head=dict(num_classes=150),
)
