# One network for boxes and masks, segmentation maps and poses: the heads of mask_rcnn.py, semantic_fpn.py and
# pose_pyramid.py.
_base_ = '../../../../../configs/multitask/multitask_ic-r18_fpn_miniature.py'

channels = 32
model = dict(
    loss_weights=dict(instance=1.0, semantic=1.0, pose=100.0),  # those of the recipe are for other losses
    backbone=dict(
        pattern='dense',
        base_channels=16,
        stem_channels=16,
        num_stages=4,
        strides=(1, 2, 2, 2),
        dilations=(1, 1, 1, 1),
        out_indices=(0, 1, 2, 3),
    ),
    neck=dict(in_channels=[16, 32, 64, 128], out_channels=channels),
    tasks=dict(
        instance=dict(
            rpn_head=dict(in_channels=channels, feat_channels=channels, anchor_generator=dict(scales=[2, 3])),
            roi_head=dict(
                bbox_roi_extractor=dict(out_channels=channels, finest_scale=16),
                bbox_head=dict(in_channels=channels, fc_out_channels=128),
                mask_roi_extractor=dict(out_channels=channels, finest_scale=16),
                mask_head=dict(num_convs=1, in_channels=channels, conv_out_channels=channels),
            ),
            train_cfg=dict(
                rpn=dict(sampler=dict(num=64)),
                rpn_proposal=dict(nms_pre=200, max_per_img=60),
                rcnn=dict(sampler=dict(num=32)),
            ),
            test_cfg=dict(rpn=dict(nms_pre=200, max_per_img=60)),
        ),
        semantic=dict(
            decode_head=dict(
                in_channels=[channels] * 4, channels=channels, loss_decode=_base_.narrow.semantic_head.loss_decode
            )
        ),
        pose=dict(head=dict(in_channels=channels, deconv_out_channels=(channels,), tag_loss=dict(kind='exp'))),
    ),
)
train_dataloader = dict(batch_size=8)
