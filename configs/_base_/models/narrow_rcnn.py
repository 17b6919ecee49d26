# What makes mmdet's Faster and Mask R-CNN small on the miniature set: narrow heads, few proposals and anchors that fit
# objects of 12 to 160 pixels. A CPU trains them in minutes. A config that inherits it merges it into its model.
narrow_rcnn = dict(
    neck=dict(in_channels=[64, 128, 256, 512], out_channels=64, num_outs=4, norm_cfg=dict(type='BN')),
    rpn_head=dict(in_channels=64, feat_channels=64, anchor_generator=dict(scales=[4], strides=[4, 8, 16, 32])),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=64, roi_layer=dict(sampling_ratio=2)),
        bbox_head=dict(in_channels=64, fc_out_channels=256, num_classes=6),
    ),
    train_cfg=dict(
        rpn=dict(assigner=dict(ignore_iof_thr=0.5), sampler=dict(num=128)),
        rpn_proposal=dict(nms_pre=400, max_per_img=100),
        rcnn=dict(assigner=dict(ignore_iof_thr=0.5), sampler=dict(num=64)),
    ),
    test_cfg=dict(rpn=dict(nms_pre=300, max_per_img=100), rcnn=dict(max_per_img=50)),
)
