# Boxes, masks, semantic segmentation and pose on the miniature set from one network: the heads of the four miniature
# recipes of single tasks.
_base_ = [
    '../_base_/models/narrow_multitask.py',
    '../_base_/backbones/ic_resnet18.py',
    '../_base_/datasets/miniature_multitask.py',
    '../_base_/schedules/miniature.py',
]
custom_imports = dict(imports=['icconv_mm'], allow_failed_imports=False)
default_scope = 'mmengine'
log_processor = _base_.iteration_log
visualizer = dict(type='icconv_mm.MultiTaskVisualizer', vis_backends=[dict(type='LocalVisBackend')])

model = dict(
    # Joints take longest from random weights. Gradients of one norm into the neck (log_gradient_norms) take about 2 and
    # 40; with 60 poses were a third worse, with 600 all was.
    loss_weights=dict(semantic=3.0, pose=200.0),
    data_preprocessor=dict(seg_pad_val=0),  # class_weight has no 255
    backbone=_base_.backbone,
    tasks=dict(
        # One sample per bin and half the proposals of the single-task recipe: RoIAlign was a sixth of a step.
        instance=dict(
            roi_head=dict(
                bbox_roi_extractor=dict(roi_layer=dict(sampling_ratio=1)),
                mask_roi_extractor=dict(roi_layer=dict(sampling_ratio=1)),
            ),
            train_cfg=dict(rcnn=dict(sampler=dict(num=32))),
        ),
        # the hinge pushes tags that are all the same, as at the start, as hard as others; 'exp' hardly does
        pose=dict(head=dict(tag_loss=dict(kind='max'), decoder=_base_.codec)),
    ),
)

train_dataloader = dict(batch_size=5)
optim_wrapper = dict(optimizer=dict(lr=2e-3))
# batches are small so that there are more steps in the same time
max_iters, warm_up = 520, 52
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
default_hooks = dict(_base_.iteration_hooks, checkpoint=dict(_base_.iteration_hooks.checkpoint, interval=max_iters))
param_scheduler = [
    dict(_base_.param_scheduler[0], end=warm_up),
    dict(_base_.param_scheduler[1], begin=warm_up, end=max_iters, T_max=max_iters - warm_up),
]
