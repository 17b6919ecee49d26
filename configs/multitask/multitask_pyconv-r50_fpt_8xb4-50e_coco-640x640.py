_base_ = [
    '../_base_/recipes/multitask_8xb4-50e_coco-640x640.py',
    '../_base_/backbones/pyconv_resnet50.py',
    '../_base_/necks/fpt.py',
]

model = dict(backbone=_base_.fine_tuned, neck=_base_.neck)
