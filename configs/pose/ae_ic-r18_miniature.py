# Bottom-up pose on the miniature set.
_base_ = [
    '../_base_/models/associative_embedding.py',
    '../_base_/backbones/ic_resnet18.py',
    '../_base_/datasets/miniature_pose.py',
    '../_base_/schedules/miniature.py',
]
custom_imports = dict(imports=['icconv_mm'], allow_failed_imports=False)
default_scope = 'mmpose'
visualizer = dict(type='PoseLocalVisualizer', vis_backends=[dict(type='LocalVisBackend')], name='visualizer')
log_processor = _base_.iteration_log

# Small people: a pyramid keeps the fine level that finds their joints, one deconvolution gives maps of half the
# image's size. From random weights within minutes: joints count more than the empty rest, larger weights at the start
# than the published 0.001, and tags are pushed harder than pulled, which at first are all the same.
input_size = (128, 128)
codec = dict(type='icconv_mm.AECodec', input_size=input_size, heatmap_size=(64, 64), sigma=1.5, detection_threshold=0.3)
model = dict(
    backbone=dict(**_base_.backbone, num_stages=3, strides=(1, 2, 2), dilations=(1, 1, 1), out_indices=(0, 1, 2)),
    neck=dict(type='FPN', in_channels=[64, 128, 256], out_channels=64, num_outs=3),
    head=dict(
        in_channels=64,
        in_index=0,
        deconv_out_channels=(64,),
        deconv_kernel_sizes=(4,),
        keypoint_loss=dict(peak_weight=20.0),
        tag_loss=dict(push_weight=0.02, pull_weight=0.005),
        decoder=codec,
        init_cfg=[
            dict(type='Normal', layer=['Conv2d', 'ConvTranspose2d'], std=0.02),
            dict(type='Constant', layer='BatchNorm2d', val=1),
        ],
    ),
)
optim_wrapper = dict(optimizer=dict(lr=2e-3))
max_iters, warm_up = 500, 50
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
param_scheduler = [
    dict(_base_.param_scheduler[0], end=warm_up),
    dict(_base_.param_scheduler[1], begin=warm_up, end=max_iters, T_max=max_iters - warm_up),
]
default_hooks = dict(
    visualization=dict(type='PoseVisualizationHook', enable=False),
    logger=_base_.iteration_hooks.logger,
    checkpoint=dict(type='icconv_mm.AtomicCheckpointHook', by_epoch=False, interval=max_iters, max_keep_ckpts=1),
)

train_pipeline = [
    dict(type='LoadImage'),
    dict(
        type='icconv_mm.BottomupAffine', input_size=input_size, rotate_factor=0, scale_factor=(1.0, 1.0), shift_factor=0
    ),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='GenerateTarget', encoder=codec),
    dict(type='icconv_mm.PackPyramidInputs'),
]
test_pipeline = [
    dict(type='LoadImage'),
    dict(type='icconv_mm.PyramidResize', input_size=input_size, scales=[1], size_divisor=32),
    dict(type='icconv_mm.PackPyramidInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
