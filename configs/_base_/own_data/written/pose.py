codec = dict(
    type='icconv_mm.AECodec',
    input_size=shape,
    heatmap_size=(shape[0] // 4, shape[1] // 4),
    sigma=2,
    detection_threshold=0.2,
)
model = dict(
    backbone=dict(backbone, out_indices=(0, 1, 2, 3)),
    neck=dict(in_channels=levels, out_channels=width),
    head=dict(in_channels=width, num_keypoints=num_keypoints, decoder=codec),
)

train_pipeline = [
    dict(type='LoadImage'),
    dict(
        type='icconv_mm.BottomupAffine',
        input_size=shape,
        rotate_factor=30,
        scale_factor=(0.75, 1.25),
        shift_factor=0.1,
        scale_type='long',
    ),
    dict(type='RandomFlip', prob=float(flip_prob), direction='horizontal'),
    dict(type='GenerateTarget', encoder=codec),
    dict(type='icconv_mm.PackMultiScaleInputs'),
]
test_pipeline = [
    dict(type='LoadImage'),
    dict(type='icconv_mm.MultiScaleResize', input_size=shape, scales=[1], size_divisor=32),
    dict(type='icconv_mm.PackMultiScaleInputs'),
]
data = dict(type='icconv_mm.BottomupCocoDataset', data_prefix=dict(img=images), metainfo=dict(keypoints=keypoints))
train_set = dict(data, ann_file=train_ann_file, keep_empty=True, pipeline=train_pipeline)
val_set = dict(data, ann_file=val_ann_file, test_mode=True, pipeline=test_pipeline)
test_set = dict(val_set, ann_file=test_ann_file)
val_batch_size = 1
val_evaluator = dict(type='CocoMetric', ann_file=val_ann_file, score_mode='bbox', nms_mode='none')
test_evaluator = dict(val_evaluator, ann_file=test_ann_file)
