# Boxes, masks, semantic segmentation and pose on the miniature set from one network: the heads of the four miniature
# recipes of single tasks.
_base_ = [
    '../_base_/models/multitask.py',
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
    neck=dict(type='mmdet.FPN', in_channels=[64, 128, 256, 512], out_channels=64, num_outs=4, norm_cfg=dict(type='BN')),
    tasks=dict(
        # narrow heads, few proposals and anchors that fit objects of 12 to 160 pixels: a CPU trains it in minutes. One
        # sample per bin and half the proposals of the single-task recipe: RoIAlign was a sixth of a step.
        instance=dict(
            rpn_head=dict(in_channels=64, feat_channels=64, anchor_generator=dict(scales=[4], strides=[4, 8, 16, 32])),
            roi_head=dict(
                bbox_roi_extractor=dict(out_channels=64, roi_layer=dict(sampling_ratio=1)),
                bbox_head=dict(in_channels=64, fc_out_channels=256, num_classes=6),
                mask_roi_extractor=dict(out_channels=64, roi_layer=dict(sampling_ratio=1)),
                mask_head=dict(num_convs=2, in_channels=64, conv_out_channels=64, num_classes=6),
            ),
            train_cfg=dict(
                rpn=dict(assigner=dict(ignore_iof_thr=0.5), sampler=dict(num=128)),
                rpn_proposal=dict(nms_pre=400, max_per_img=100),
                rcnn=dict(assigner=dict(ignore_iof_thr=0.5), sampler=dict(num=32)),
            ),
            test_cfg=dict(rpn=dict(nms_pre=300, max_per_img=100), rcnn=dict(max_per_img=50)),
        ),
        semantic=dict(
            decode_head=dict(
                in_channels=[64, 64, 64, 64],
                channels=64,
                num_classes=7,
                dropout_ratio=0.0,
                norm_cfg=dict(type='BN'),
                # Three of four pixels are background: the second loss weighs all classes alike.
                loss_decode=[
                    dict(
                        type='CrossEntropyLoss', loss_name='loss_ce', class_weight=[1.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0]
                    ),
                    dict(type='LovaszLoss', loss_name='loss_lovasz', reduction='none'),
                ],
            ),
        ),
        pose=dict(
            head=dict(
                in_channels=64,
                deconv_out_channels=(64,),
                deconv_kernel_sizes=(4,),
                keypoint_loss=dict(peak_weight=20.0),
                # the hinge pushes tags that are all the same, as at the start, as hard as others; 'exp' hardly does
                tag_loss=dict(push_weight=0.02, pull_weight=0.005, kind='max'),
                decoder=_base_.codec,
                init_cfg=[
                    dict(type='Normal', layer=['Conv2d', 'ConvTranspose2d'], std=0.02),
                    dict(type='Constant', layer='BatchNorm2d', val=1),
                ],
            ),
        ),
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
