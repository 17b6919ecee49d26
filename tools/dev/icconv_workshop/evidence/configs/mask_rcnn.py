# Mask R-CNN, narrow, on four stages of a ResNet-18.
_base_ = '../../../../../configs/instance_segmentation/mask-rcnn_ic-r18_fpn_miniature.py'

channels = 32
model = dict(
    backbone=dict(pattern='dense', base_channels=16, stem_channels=16),
    neck=dict(in_channels=[16, 32, 64, 128], out_channels=channels),
    rpn_head=dict(in_channels=channels, feat_channels=channels, anchor_generator=dict(scales=[2, 3])),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=channels, roi_layer=dict(sampling_ratio=1), finest_scale=16),
        bbox_head=dict(in_channels=channels, fc_out_channels=128),
        mask_roi_extractor=dict(out_channels=channels, roi_layer=dict(sampling_ratio=1), finest_scale=16),
        mask_head=dict(num_convs=1, in_channels=channels, conv_out_channels=channels),
    ),
    train_cfg=dict(
        rpn=dict(sampler=dict(num=64)), rpn_proposal=dict(nms_pre=200, max_per_img=60), rcnn=dict(sampler=dict(num=32))
    ),
    test_cfg=dict(rpn=dict(nms_pre=200, max_per_img=60)),
)
