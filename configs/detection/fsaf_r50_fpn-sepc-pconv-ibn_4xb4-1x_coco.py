_base_ = [
    '../_base_/recipes/fsaf_fpn-sepc_1x_coco.py',
    '../_base_/backbones/resnet50.py',
    '../_base_/necks/sepc_pconv_ibn.py',
]

model = dict(backbone=dict(_delete_=True, **_base_.fine_tuned), neck=[_base_.model.neck, _base_.neck])
train_dataloader = dict(batch_size=4)
