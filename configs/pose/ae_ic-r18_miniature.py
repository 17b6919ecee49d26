# Bottom-up pose on the miniature set.
_base_ = [
    '../_base_/models/associative_embedding.py',
    '../_base_/values/miniature_narrow.py',
    '../_base_/backbones/ic_resnet18.py',
    '../_base_/datasets/miniature_pose.py',
    '../_base_/schedules/miniature.py',
]
custom_imports = dict(imports=['icconv_mm'], allow_failed_imports=False)
default_scope = 'mmpose'
visualizer = dict(type='PoseLocalVisualizer', vis_backends=[dict(type='LocalVisBackend')], name='visualizer')
log_processor = _base_.iteration_log

# Small people: a pyramid keeps the fine level that finds their keypoints, one deconvolution gives maps of half the
# image's size.
model = dict(
    backbone=dict(**_base_.backbone, num_stages=3, out_indices=(0, 1, 2)),
    neck=dict(type='icconv_mm.FinestFPN', in_channels=[64, 128, 256], out_channels=64),
    head=dict(**_base_.narrow.pose_head, decoder=_base_.codec),
)
optim_wrapper = dict(optimizer=dict(lr=2e-3))
max_iters, warm_up = 500, 50
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
param_scheduler = [
    dict(_base_.param_scheduler[0], end=warm_up),
    dict(_base_.param_scheduler[1], begin=warm_up, end=max_iters, T_max=max_iters - warm_up),
]
default_hooks = dict(_base_.iteration_hooks, visualization=dict(type='PoseVisualizationHook', enable=False))
