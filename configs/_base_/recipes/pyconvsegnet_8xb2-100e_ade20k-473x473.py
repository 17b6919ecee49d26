# PyConvSegNet on ADE20K. A config that inherits it adds the backbone, which gets output stride 8.
_base_ = [
    'mmseg::_base_/default_runtime.py',
    '../models/pyconvsegnet.py',
    '../datasets/ade20k_473x473.py',
    '../schedules/pyconvsegnet_100e.py',
]
custom_imports = dict(imports=['icconv_mm'], allow_failed_imports=False)

crop_size = (473, 473)
model = dict(
    data_preprocessor=dict(size=crop_size, test_cfg=dict(size=crop_size)),  # no window is smaller
    backbone=dict(output_stride=8, norm_cfg=_base_.norm_cfg),
    decode_head=dict(num_classes=150),
    auxiliary_head=dict(num_classes=150),
    test_cfg=dict(mode='slide', crop_size=crop_size, stride=(316, 316)),  # two thirds of a crop
)
