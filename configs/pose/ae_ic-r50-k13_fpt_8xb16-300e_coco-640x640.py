# FPT before the head, which reads the finest level, stride 4, where the heatmaps are: no deconvolutions.
_base_ = [
    '../_base_/models/associative_embedding.py',
    '../_base_/backbones/ic_resnet50_k13.py',
    '../_base_/necks/fpt.py',
    '../_base_/datasets/coco_pose_bottomup.py',
    '../_base_/schedules/pose_300e.py',
]
custom_imports = dict(imports=['icconv_mm'], allow_failed_imports=False)

model = dict(
    backbone=dict(
        **_base_.backbone,
        init_cfg=dict(type='Pretrained', checkpoint='checkpoints/ic_resnet50_k13_imagenet.pth', prefix='backbone.'),
    ),
    neck=dict(**_base_.neck),
    head=dict(in_channels=256, in_index=0, deconv_out_channels=None, deconv_kernel_sizes=None),
)
default_hooks = dict(checkpoint=dict(save_best='coco/AP', rule='greater'))
