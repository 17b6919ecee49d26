_base_ = ['./retinanet_r50_fpn_1x_coco.py', '../_base_/necks/sepc_pconv_ibn.py']

model = dict(
    neck=[_base_.model.neck, _base_.neck],
    bbox_head=dict(type='icconv_mm.SplitFeatureHead', head_type='RetinaHead', stacked_convs=0),
)
train_dataloader = dict(batch_size=4)  # per GPU, of 4: integrated batch norm wants pictures
optim_wrapper = dict(clip_grad=dict(max_norm=35, norm_type=2))
