# RetinaNet as SEPC is compared with it: the head's four convolutions per branch are what pyramid convolutions replace.
# A ResNet-18 of three stages. Weights begin larger than the published 0.01 by the root of 256 / 32 channels, so that
# maps are as large as there.
_base_ = './retinanet.py'

std = 0.028
model = dict(
    backbone=dict(
        base_channels=16, stem_channels=16, num_stages=3, strides=(1, 2, 2), dilations=(1, 1, 1), out_indices=(0, 1, 2)
    ),
    neck=dict(in_channels=[16, 32, 64]),
    bbox_head=dict(
        stacked_convs=4,
        norm_cfg=None,
        init_cfg=dict(
            type='Normal',
            layer='Conv2d',
            std=std,
            override=dict(type='Normal', name='retina_cls', std=std, bias_prob=0.01),
        ),
    ),
)
