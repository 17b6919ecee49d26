# What makes the libraries' networks small on the miniature set, so that a CPU trains them in minutes: 64 channels, few
# proposals, anchors that fit objects of 12 to 160 pixels. A config that inherits it merges the parts it needs into its
# model.
class_weight = [1.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0]  # three of four pixels are background, the first class
narrow = dict(
    fpn=dict(in_channels=[64, 128, 256, 512], out_channels=64, num_outs=4, norm_cfg=dict(type='BN')),
    rcnn=dict(
        rpn_head=dict(in_channels=64, feat_channels=64, anchor_generator=dict(scales=[4], strides=[4, 8, 16, 32])),
        roi_head=dict(
            bbox_roi_extractor=dict(
                type='icconv_mm.CPURoIExtractor', out_channels=64, roi_layer=dict(sampling_ratio=2)
            ),
            bbox_head=dict(in_channels=64, fc_out_channels=256, num_classes=6),
        ),
        train_cfg=dict(
            rpn=dict(assigner=dict(ignore_iof_thr=0.5), sampler=dict(num=128)),
            rpn_proposal=dict(nms_pre=400, max_per_img=100),
            rcnn=dict(assigner=dict(ignore_iof_thr=0.5), sampler=dict(num=64)),
        ),
        test_cfg=dict(rpn=dict(nms_pre=300, max_per_img=100), rcnn=dict(max_per_img=50)),
    ),
    mask_branch=dict(  # of the roi_head
        mask_roi_extractor=dict(type='icconv_mm.CPURoIExtractor', out_channels=64, roi_layer=dict(sampling_ratio=2)),
        mask_head=dict(num_convs=2, in_channels=64, conv_out_channels=64, num_classes=6),
    ),
    semantic_head=dict(
        in_channels=[64, 64, 64, 64],
        channels=64,
        num_classes=7,
        dropout_ratio=0.0,
        norm_cfg=dict(type='BN'),
        loss_decode=[
            dict(type='CrossEntropyLoss', loss_name='loss_ce', class_weight=class_weight),
            dict(type='icconv_mm.LovaszSoftmaxLoss'),  # weighs all classes alike
        ],
    ),
    # From random weights within minutes: keypoints count more than the empty rest, weights start larger than the
    # published 0.001, and tags, which at first are all the same, are pushed harder than pulled.
    pose_head=dict(
        in_channels=64,
        in_index=0,
        deconv_out_channels=(64,),
        deconv_kernel_sizes=(4,),
        keypoint_loss=dict(peak_weight=20.0),
        tag_loss=dict(push_weight=0.02, pull_weight=0.005),
        init_cfg=[
            dict(type='Normal', layer=['Conv2d', 'ConvTranspose2d'], std=0.02),
            dict(type='Constant', layer='BatchNorm2d', val=1),
        ],
    ),
)
