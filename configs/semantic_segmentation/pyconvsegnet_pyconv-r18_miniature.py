# PyConvSegNet in small, from scratch within minutes on a CPU: three stages, the last dilated to keep output stride 8,
# and narrow heads.
_base_ = [
    '../_base_/models/pyconvsegnet.py',
    '../_base_/values/miniature_narrow.py',
    '../_base_/backbones/pyconv_resnet18.py',
    '../_base_/datasets/miniature_semantic.py',
    '../_base_/schedules/miniature_mmseg.py',
]
custom_imports = dict(imports=['icconv_mm'], allow_failed_imports=False)
visualizer = dict(type='icconv_mm.SegVisualizer', **_base_.metainfo)

norm_cfg = dict(type='BN')
model = dict(
    # padding is background: mmseg's loss cannot weigh classes where pixels are ignored
    data_preprocessor=dict(size_divisor=8, seg_pad_val=0, test_cfg=dict(size_divisor=8)),
    backbone=dict(**_base_.backbone, num_stages=3, strides=(1, 2, 1), dilations=(1, 1, 2), out_indices=(0, 1, 2)),
    decode_head=dict(
        in_channels=256,
        in_index=2,
        channels=64,
        pyconv_channels=64,
        dropout_ratio=0.0,
        num_classes=7,
        norm_cfg=norm_cfg,
        loss_decode=_base_.narrow.semantic_head.loss_decode,
    ),
    auxiliary_head=dict(
        in_channels=128,
        in_index=1,
        channels=64,
        dropout_ratio=0.0,
        num_classes=7,
        norm_cfg=norm_cfg,
        loss_decode=dict(class_weight=_base_.class_weight),
    ),
    test_cfg=dict(mode='whole'),
)

optim_wrapper = dict(optimizer=dict(lr=3e-3))
train_dataloader = dict(batch_size=12)
max_iters, warm_up = 450, 50
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
param_scheduler = [
    dict(_base_.param_scheduler[0], end=warm_up),
    dict(_base_.param_scheduler[1], begin=warm_up, end=max_iters, T_max=max_iters - warm_up),
]
