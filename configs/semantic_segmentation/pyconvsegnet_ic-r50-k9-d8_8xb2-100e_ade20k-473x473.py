_base_ = [
    'mmseg::_base_/default_runtime.py',
    '../_base_/models/pyconvsegnet.py',
    '../_base_/backbones/ic_resnet50_k9_seg.py',
    '../_base_/datasets/ade20k_473x473.py',
    '../_base_/schedules/pyconvsegnet_100e_ade20k.py',
]
custom_imports = dict(imports=['icconv_mm'], allow_failed_imports=False)

model = dict(
    backbone=dict(
        **_base_.backbone,
        output_stride=8,
        norm_cfg=_base_.norm_cfg,
        init_cfg=dict(type='Pretrained', checkpoint='checkpoints/ic_resnet50_k9_seg_imagenet.pth', prefix='backbone.'),
    ),
)
