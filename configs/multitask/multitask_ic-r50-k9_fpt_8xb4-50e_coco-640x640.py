_base_ = [
    '../_base_/recipes/multitask_8xb4-50e_coco-640x640.py',
    '../_base_/backbones/ic_resnet50_k9.py',
    '../_base_/necks/fpt.py',
]

model = dict(backbone=_base_.fine_tuned, neck=_base_.neck)
