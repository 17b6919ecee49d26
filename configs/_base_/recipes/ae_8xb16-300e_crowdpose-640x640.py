# Associative embedding on CrowdPose, 14 keypoints. A config that inherits it adds the backbone.
_base_ = [
    '../models/associative_embedding.py',
    '../datasets/crowdpose_bottomup.py',
    '../schedules/pose_300e.py',
]
custom_imports = dict(imports=['icconv_mm'], allow_failed_imports=False)

model = dict(head=dict(num_keypoints=14, decoder=_base_.codec))
default_hooks = dict(checkpoint=dict(save_best='crowdpose/AP', rule='greater'))
