# Bottom-up pose on the miniature set: small people, so a narrow head on stride 16 of a network without its last stage.
_base_ = [
    '../_base_/models/associative_embedding.py',
    '../_base_/backbones/ic_resnet18.py',
    '../_base_/datasets/miniature_pose.py',
    '../_base_/schedules/miniature.py',
]
custom_imports = dict(imports=['icconv_mm'], allow_failed_imports=False)
default_scope = 'mmpose'
default_hooks = dict(
    visualization=dict(type='PoseVisualizationHook', enable=False),
    **_base_.iteration_hooks,
)
visualizer = dict(type='PoseLocalVisualizer', vis_backends=[dict(type='LocalVisBackend')], name='visualizer')
log_processor = _base_.iteration_log

input_size = (192, 192)
codec = dict(type='icconv_mm.AECodec', input_size=input_size, heatmap_size=(48, 48), sigma=2)
model = dict(
    backbone=dict(**_base_.backbone, num_stages=3, strides=(1, 2, 2), dilations=(1, 1, 1), out_indices=(2,)),
    head=dict(in_channels=256, deconv_out_channels=(64, 64), deconv_kernel_sizes=(4, 4), decoder=codec),
)

train_pipeline = [
    dict(type='LoadImage'),
    dict(
        type='icconv_mm.BottomupAffine',
        input_size=input_size,
        rotate_factor=0,
        scale_factor=(0.9, 1.1),
        shift_factor=0.1,
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
