_base_ = [
    'mmseg::_base_/default_runtime.py',
    'mmseg::_base_/datasets/cityscapes_769x769.py',
    'mmseg::_base_/schedules/schedule_80k.py',
    '../_base_/models/pyconvsegnet.py',
    '../_base_/backbones/pyconv_resnet50.py',
]
custom_imports = dict(imports=['icconv_mm'], allow_failed_imports=False)

crop_size = (769, 769)
model = dict(
    data_preprocessor=dict(size=crop_size),
    backbone=dict(
        **_base_.backbone,
        output_stride=8,
        norm_cfg=_base_.norm_cfg,
        init_cfg=dict(type='Pretrained', checkpoint='checkpoints/pyconv_resnet50_imagenet.pth', prefix='backbone.'),
    ),
    decode_head=dict(num_classes=19),
    auxiliary_head=dict(num_classes=19),
    test_cfg=dict(crop_size=crop_size, stride=(513, 513)),
)
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(head=dict(lr_mult=10.0))))
