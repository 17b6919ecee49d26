# RetinaNet with FPT in the place of the FPN. A config that inherits it adds the backbone.
_base_ = [
    'mmdet::retinanet/retinanet_r50_fpn_2x_coco.py',
    '../necks/fpt.py',
    '../pipelines/fpt_multi_scale.py',
]
custom_imports = dict(imports=['icconv_mm'], allow_failed_imports=False)

model = dict(neck=dict(_delete_=True, **_base_.neck, start_level=1, add_extra_convs='on_input'))
train_dataloader = dict(dataset=dict(pipeline=_base_.fpt_box_pipeline))
val_dataloader = dict(dataset=dict(pipeline=_base_.fpt_test_pipeline))
test_dataloader = val_dataloader
