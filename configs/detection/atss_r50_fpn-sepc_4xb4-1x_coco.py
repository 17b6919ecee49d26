_base_ = [
    'mmdet::atss/atss_r50_fpn_1x_coco.py',
    '../_base_/backbones/resnet50.py',
    '../_base_/necks/sepc.py',
]
custom_imports = dict(imports=['icconv_mm'], allow_failed_imports=False)

model = dict(
    backbone=dict(_delete_=True, **_base_.fine_tuned),
    neck=[_base_.model.neck, _base_.neck],
    bbox_head=dict(type='icconv_mm.SplitFeatureHead', head_type='ATSSHead', stacked_convs=0),
)
train_dataloader = dict(batch_size=4)
optim_wrapper = dict(clip_grad=dict(max_norm=35, norm_type=2))
