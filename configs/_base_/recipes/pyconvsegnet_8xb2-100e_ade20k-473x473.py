# PyConvSegNet on ADE20K. A config that inherits it adds the backbone.
_base_ = [
    'mmseg::_base_/default_runtime.py',
    '../models/pyconvsegnet.py',
    '../datasets/ade20k_473x473.py',
    '../schedules/pyconvsegnet_100e_ade20k.py',
]
custom_imports = dict(imports=['icconv_mm'], allow_failed_imports=False)
