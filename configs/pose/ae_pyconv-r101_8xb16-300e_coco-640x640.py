_base_ = [
    '../_base_/models/associative_embedding.py',
    '../_base_/backbones/pyconv_resnet101.py',
    '../_base_/datasets/coco_pose_bottomup.py',
    '../_base_/schedules/pose_300e.py',
]
custom_imports = dict(imports=['icconv_mm'], allow_failed_imports=False)

model = dict(
    backbone=dict(
        **_base_.backbone,
        out_indices=(3,),
        init_cfg=dict(type='Pretrained', checkpoint='checkpoints/pyconv_resnet101_imagenet.pth', prefix='backbone.'),
    ),
)
optim_wrapper = dict(optimizer=dict(lr=5e-4))
default_hooks = dict(checkpoint=dict(save_best='coco/AP', rule='greater'))
