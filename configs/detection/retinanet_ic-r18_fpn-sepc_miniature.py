# RetinaNet-SEPC on the miniature set: a narrow neck on strides 4 to 32 that deforms from stride 16 on.
_base_ = [
    'mmdet::_base_/models/retinanet_r50_fpn.py',
    '../_base_/values/miniature_narrow.py',
    '../_base_/backbones/ic_resnet18.py',
    '../_base_/datasets/miniature_detection.py',
    '../_base_/schedules/miniature_mmdet.py',
]
custom_imports = dict(imports=['icconv_mm'], allow_failed_imports=False)

model = dict(
    backbone=dict(_delete_=True, **_base_.backbone, norm_eval=False),
    neck=[
        dict(type='FPN', **_base_.narrow.fpn),
        dict(
            type='icconv_mm.SEPC',
            in_channels=64,
            out_channels=64,
            num_outs=4,
            pconv_deform=True,
            lcconv_deform=True,
            ibn=True,
            lcconv_padding=1,
            start_level=2,
        ),
    ],
    bbox_head=dict(
        type='icconv_mm.SplitFeatureHead',
        head_type='RetinaHead',
        num_classes=6,
        in_channels=64,
        feat_channels=64,
        stacked_convs=0,
        anchor_generator=dict(strides=[4, 8, 16, 32]),
    ),
    train_cfg=dict(assigner=dict(ignore_iof_thr=0.5)),
    test_cfg=dict(nms_pre=300, max_per_img=50),
)

# a focal loss takes longer than two stages to predict anything from random weights
max_iters, warm_up = 400, 40
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
param_scheduler = [
    dict(_base_.param_scheduler[0], end=warm_up),
    dict(_base_.param_scheduler[1], begin=warm_up, end=max_iters, T_max=max_iters - warm_up),
]
