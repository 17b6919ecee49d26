# RetinaNet with SEPC behind the FPN. A config that inherits it adds the backbone and, after the FPN, the neck.
_base_ = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'
custom_imports = dict(imports=['icconv_mm'], allow_failed_imports=False)

model = dict(bbox_head=dict(type='icconv_mm.SplitFeatureHead', head_type='RetinaHead', stacked_convs=0))
optim_wrapper = dict(clip_grad=dict(max_norm=35, norm_type=2))
