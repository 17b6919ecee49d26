# RetinaNet as SEPC is compared with it: the head's four convolutions per branch are what pyramid convolutions replace.
# A ResNet-18 of three stages.
_base_ = './retinanet.py'

model = dict(
    backbone=dict(base_channels=16, num_stages=3, strides=(1, 2, 2), dilations=(1, 1, 1), out_indices=(0, 1, 2)),
    neck=dict(in_channels=[16, 32, 64]),
    bbox_head=dict(stacked_convs=4, norm_cfg=None),
)
