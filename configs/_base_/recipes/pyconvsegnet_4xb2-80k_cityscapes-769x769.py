# PyConvSegNet on Cityscapes with mmseg's data and schedule. A config that inherits it adds the backbone, which
# gets output stride 8.
_base_ = [
    'mmseg::_base_/default_runtime.py',
    'mmseg::_base_/datasets/cityscapes_769x769.py',
    'mmseg::_base_/schedules/schedule_80k.py',
    '../models/pyconvsegnet.py',
]
custom_imports = dict(imports=['icconv_mm'], allow_failed_imports=False)

model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    backbone=dict(output_stride=8, norm_cfg=_base_.norm_cfg),
    decode_head=dict(num_classes=19),
    auxiliary_head=dict(num_classes=19),
    test_cfg=dict(mode='slide', crop_size=_base_.crop_size, stride=(513, 513)),
)
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(head=dict(lr_mult=10.0))))
