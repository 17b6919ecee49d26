_base_ = [
    '../_base_/models/associative_embedding.py',
    '../_base_/backbones/ic_resnet50_k13.py',
    '../_base_/datasets/crowdpose_bottomup.py',
    '../_base_/schedules/pose_300e.py',
]
custom_imports = dict(imports=['icconv_mm'], allow_failed_imports=False)

model = dict(
    backbone=dict(**_base_.backbone, out_indices=(3,), init_cfg=_base_.weights),
    head=dict(num_keypoints=14),
)
default_hooks = dict(checkpoint=dict(save_best='crowdpose/AP', rule='greater'))
