_base_ = [
    'mmseg::_base_/default_runtime.py',
    'mmseg::_base_/schedules/schedule_80k.py',
    'mmseg::_base_/datasets/cityscapes.py',
    '../_base_/models/ufp_fpt.py',
    '../_base_/backbones/resnet101.py',
]
custom_imports = dict(imports=['icconv_mm'], allow_failed_imports=False)

model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    backbone=dict(
        **_base_.pretrained,
        output_stride=8,
        contract_dilation=True,
        norm_cfg=_base_.norm_cfg,
    ),
    decode_head=dict(num_classes=19),
)
