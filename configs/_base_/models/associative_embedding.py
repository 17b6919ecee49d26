# Bottom-up pose by associative embedding: three deconvolutions to stride 4, then a heatmap and a tag map per keypoint.
# A config that inherits it adds the backbone, and the codec of its data as the decoder of poses.
model = dict(
    type='icconv_mm.AEPoseEstimator',
    data_preprocessor=dict(
        type='icconv_mm.MultiScaleDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
    ),
    head=dict(
        type='icconv_mm.AEHead',
        in_channels=2048,
        num_keypoints=17,
        deconv_out_channels=(256, 256, 256),
        deconv_kernel_sizes=(4, 4, 4),
        keypoint_loss=dict(type='icconv_mm.MaskedHeatmapLoss'),
        tag_loss=dict(type='icconv_mm.TagLoss', push_weight=0.001, pull_weight=0.001, kind='exp'),
    ),
    test_cfg=dict(flip_test=True, restore_heatmap_size=True, align_corners=False),
)
