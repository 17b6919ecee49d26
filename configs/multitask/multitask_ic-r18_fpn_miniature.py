# Boxes, masks, semantic segmentation and pose on the miniature set from one network: the heads of the four miniature
# recipes of single tasks.
_base_ = [
    '../_base_/models/miniature_multitask.py',
    '../_base_/backbones/ic_resnet18.py',
    '../_base_/datasets/miniature_multitask.py',
    '../_base_/schedules/miniature.py',
]
custom_imports = dict(imports=['icconv_mm'], allow_failed_imports=False)
default_scope = 'mmengine'
log_processor = _base_.iteration_log
visualizer = dict(type='icconv_mm.MultiTaskVisualizer', vis_backends=[dict(type='LocalVisBackend')])

model = dict(
    # Boxes and masks are learned soonest and poses last from random weights, so these weights differ by so much.
    loss_weights=dict(instance=0.25, semantic=6.0, pose=400.0),
    data_preprocessor=dict(seg_pad_val=0),  # class_weight has no 255
    # three stages of three quarters of the width for more steps in the same time
    backbone=dict(
        _base_.backbone,
        base_channels=48,
        stem_channels=48,
        num_stages=3,
        out_indices=(0, 1, 2),
    ),
    neck=dict(in_channels=[48, 96, 192]),
    tasks=dict(
        # one sample per bin and fewer proposals than in the single-task recipe, for shorter steps
        instance=dict(
            roi_head=dict(
                bbox_roi_extractor=dict(roi_layer=dict(sampling_ratio=1)),
                mask_roi_extractor=dict(roi_layer=dict(sampling_ratio=1)),
            ),
            train_cfg=dict(rpn_proposal=dict(nms_pre=100, max_per_img=50), rcnn=dict(sampler=dict(num=16))),
        ),
        # instead of the Lovasz loss of the single-task recipe, which sorts all pixels
        semantic=dict(
            decode_head=dict(
                loss_decode=[
                    _base_.narrow.semantic_head.loss_decode[0],
                    dict(type='TverskyLoss', loss_name='loss_tversky'),
                ]
            )
        ),
        # the hinge pushes tags that are all the same, as at the start, as hard as others; 'exp' hardly does
        pose=dict(head=dict(tag_loss=dict(kind='max'), decoder=_base_.codec)),
    ),
)

# small batches for more steps in the same time, read by the training's own process
train_dataloader = dict(batch_size=4, num_workers=0, persistent_workers=False)
optim_wrapper = dict(optimizer=dict(lr=2e-3))
max_iters, warm_up = 690, 69
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
default_hooks = _base_.iteration_hooks
param_scheduler = [
    dict(_base_.param_scheduler[0], end=warm_up),
    dict(_base_.param_scheduler[1], begin=warm_up, end=max_iters, T_max=max_iters - warm_up),
]
