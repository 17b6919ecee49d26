# Bottom-up pose for one's own skeleton: associative embedding on the finest level of a pyramid. Keypoints count more
# than the empty rest, and tags are pushed harder than pulled: from random weights the published ones are all the same.
_base_ = ['../models/associative_embedding.py', './runtime.py']
default_scope = 'mmpose'
visualizer = dict(type='PoseLocalVisualizer', vis_backends=[dict(type='LocalVisBackend')])

model = dict(
    neck=dict(type='icconv_mm.FinestFPN', norm_cfg=dict(type='BN')),
    head=dict(
        in_index=0,
        deconv_out_channels=None,
        deconv_kernel_sizes=None,
        keypoint_loss=dict(peak_weight=20.0),
        tag_loss=dict(push_weight=0.02, pull_weight=0.005),
        init_cfg=[dict(type='Normal', layer='Conv2d', std=0.02)],
    ),
)
default_hooks = dict(checkpoint=dict(save_best='coco/AP'))
