# FreeAnchor with SEPC behind the FPN. A config that inherits it adds the backbone and, after the FPN, the neck.
_base_ = ['mmdet::free_anchor/freeanchor_r50_fpn_1x_coco.py', '../values/sepc_warm_up.py']
custom_imports = dict(imports=['icconv_mm'], allow_failed_imports=False)

model = dict(bbox_head=dict(type='icconv_mm.SplitFeatureHead', head_type='FreeAnchorRetinaHead', stacked_convs=0))
param_scheduler = [_base_.sepc_warm_up, _base_.param_scheduler[1]]
