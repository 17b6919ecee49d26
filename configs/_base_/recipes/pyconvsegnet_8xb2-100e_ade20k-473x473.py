# PyConvSegNet on ADE20K. A config that inherits it adds the backbone, which gets output stride 8.
_base_ = [
    'mmseg::_base_/default_runtime.py',
    '../models/pyconvsegnet.py',
    '../datasets/ade20k_473x473.py',
    '../schedules/pyconvsegnet_100e.py',
]
custom_imports = dict(imports=['icconv_mm'], allow_failed_imports=False)

model = dict(backbone=dict(output_stride=8, norm_cfg=_base_.norm_cfg))
