# One network for boxes and masks (mmdet's Mask R-CNN), semantic segmentation (mmseg's semantic FPN) and bottom-up pose
# (associative embedding), on a neck of 256 channels with levels of stride 4 to 64. A config that inherits it adds
# backbone, neck, and the codec of its data as the decoder of poses.
_base_ = 'mmdet::_base_/models/mask-rcnn_r50_fpn.py'

model = dict(
    _delete_=True,
    type='icconv_mm.MultiTaskModel',
    data_preprocessor=dict(
        type='icconv_mm.MultiTaskDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_size_divisor=32,
    ),
    tasks=dict(
        instance=dict(
            type='mmdet.MaskRCNN',
            rpn_head=_base_.model.rpn_head,
            roi_head=_base_.model.roi_head,
            train_cfg=_base_.model.train_cfg,
            test_cfg=_base_.model.test_cfg,
        ),
        semantic=dict(
            type='mmseg.EncoderDecoder',
            decode_head=dict(
                type='FPNHead',
                in_channels=[256, 256, 256, 256],
                in_index=[0, 1, 2, 3],
                feature_strides=[4, 8, 16, 32],
                channels=128,
                dropout_ratio=0.1,
                num_classes=171,
                norm_cfg=dict(type='SyncBN'),
                align_corners=False,
                loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0),
            ),
            test_cfg=dict(mode='whole'),
        ),
        pose=dict(
            type='icconv_mm.AEPoseEstimator',
            head=dict(
                type='icconv_mm.AEHead',
                in_channels=256,
                in_index=0,
                num_keypoints=17,
                deconv_out_channels=None,
                deconv_kernel_sizes=None,
                keypoint_loss=dict(type='icconv_mm.MaskedHeatmapLoss'),
                tag_loss=dict(type='icconv_mm.TagLoss', push_weight=0.001, pull_weight=0.001, kind='exp'),
            ),
            # test_scales=[2, 1, 0.5] is the multi-scale test
            test_cfg=dict(flip_test=True, restore_heatmap_size=True, align_corners=False),
        ),
    ),
)
