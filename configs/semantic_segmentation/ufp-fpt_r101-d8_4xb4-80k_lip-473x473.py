_base_ = [
    'mmseg::_base_/models/pspnet_r50-d8.py',
    'mmseg::_base_/default_runtime.py',
    'mmseg::_base_/schedules/schedule_80k.py',
    '../_base_/backbones/resnet101.py',
    '../_base_/necks/ufp_fpt.py',
    '../_base_/datasets/lip_473x473.py',
]
custom_imports = dict(imports=['icconv_mm'], allow_failed_imports=False)

model = dict(
    pretrained=None,
    data_preprocessor=dict(size=_base_.crop_size),
    backbone=dict(_delete_=True, **_base_.backbone, **_base_.stride_8, init_cfg=_base_.weights),
    neck=_base_.neck,
    decode_head=dict(_delete_=True, **_base_.all_levels_head, num_classes=20),
    auxiliary_head=None,
)
