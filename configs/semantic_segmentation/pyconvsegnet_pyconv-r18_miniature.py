# PyConvSegNet in small, from scratch within minutes on a CPU: narrow heads at output stride 8.
_base_ = [
    'mmseg::_base_/default_runtime.py',
    '../_base_/models/pyconvsegnet.py',
    '../_base_/backbones/pyconv_resnet18.py',
    '../_base_/datasets/miniature_semantic.py',
    '../_base_/schedules/miniature.py',
]
custom_imports = dict(imports=['icconv_mm'], allow_failed_imports=False)
default_hooks = _base_.iteration_hooks
log_processor = _base_.iteration_log

model = dict(
    data_preprocessor=dict(size=None, size_divisor=32, test_cfg=dict(size_divisor=32)),
    backbone=dict(**_base_.backbone, output_stride=8),
    decode_head=dict(
        in_channels=512, channels=64, pyconv_channels=64, dropout_ratio=0.0, num_classes=7, norm_cfg=dict(type='BN')
    ),
    auxiliary_head=dict(in_channels=256, channels=64, dropout_ratio=0.0, num_classes=7, norm_cfg=dict(type='BN')),
    test_cfg=dict(_delete_=True, mode='whole'),
)
