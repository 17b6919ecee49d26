# FPT for segmentation with mmseg's schedule. A config that inherits it adds the dataset, the size of a crop, the number
# of classes, and the backbone, which gets output stride 8.
_base_ = ['mmseg::_base_/default_runtime.py', 'mmseg::_base_/schedules/schedule_80k.py', '../models/ufp_fpt.py']
custom_imports = dict(imports=['icconv_mm'], allow_failed_imports=False)

model = dict(backbone=dict(output_stride=8, contract_dilation=True, norm_cfg=_base_.norm_cfg))
