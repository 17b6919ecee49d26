# A deformable backbone, trained at short sides of 480 to 960.
_base_ = './freeanchor_r50_fpn-sepc_4xb4-ms-2x_coco.py'

model = dict(
    backbone=dict(dcn=dict(type='DCN', deform_groups=1), stage_with_dcn=(False, True, True, True)),
)
train_pipeline = [
    *_base_.train_pipeline[:2],
    dict(_base_.train_pipeline[2], scale=[(1333, 480), (1333, 960)]),
    *_base_.train_pipeline[3:],
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
