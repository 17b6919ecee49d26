# RetinaNet with SEPC behind the FPN. A config that inherits it adds the backbone and, after the FPN, the neck.
_base_ = ['mmdet::retinanet/retinanet_r50_fpn_1x_coco.py', '../values/sepc_warm_up.py']
custom_imports = dict(imports=['icconv_mm'], allow_failed_imports=False)

model = dict(
    bbox_head=dict(
        type='icconv_mm.SplitFeatureHead',
        head_type='RetinaHead',
        stacked_convs=0,
        loss_bbox=dict(type='SmoothL1Loss', beta=0.11),
    )
)
optim_wrapper = dict(clip_grad=dict(max_norm=35, norm_type=2))
param_scheduler = [_base_.sepc_warm_up, _base_.param_scheduler[1]]
