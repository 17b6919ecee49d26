model = dict(
    backbone=backbone,
    neck=dict(in_channels=levels, out_channels=width, num_outs=len(strides)),
    rpn_head=dict(in_channels=width, feat_channels=width, anchor_generator=dict(anchors, strides=strides)),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=width, featmap_strides=strides[:-1]),
        bbox_head=dict(in_channels=width, fc_out_channels=min(512, 4 * width), num_classes=num_classes),
    ),
    train_cfg=dict(
        rpn_proposal=dict(nms_pre=2 * proposals, max_per_img=proposals), rcnn=dict(sampler=dict(num=samples))
    ),
    test_cfg=dict(
        rpn=dict(nms_pre=2 * test_proposals, max_per_img=test_proposals),
        rcnn=dict(nms=dict(type='soft_nms'), max_per_img=detections),
    ),
)
# {% if is_fast %}
# one sample of a bin, and boxes that all classes share: a prediction costs less, and boxes of other classes help
model['roi_head']['bbox_roi_extractor']['roi_layer'] = dict(sampling_ratio=1)
model['roi_head']['bbox_head']['reg_class_agnostic'] = True
# {% endif %}
load = dict(type='LoadAnnotations', with_bbox=True)
metric = ['bbox']
# {% if 'instance' in tasks %}
model['test_cfg']['rcnn'].pop('nms')  # a soft suppression gives three times as many boxes, and masks gain little
model['roi_head'].update(
    mask_roi_extractor=dict(out_channels=width, featmap_strides=strides[:-1]),
    mask_head=dict(in_channels=width, conv_out_channels=width, num_classes=num_classes),
)
load['with_mask'] = True
metric.append('segm')
# {% endif %}

varied = [
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion', brightness_delta=16, contrast_range=(0.8, 1.2), hue_delta=6),
    dict(type='PackDetInputs'),
]
train_pipeline = [
    dict(type='LoadImageFromFile'),
    load,
    dict(type='RandomResize', scale=(size, size), ratio_range=(0.8, 1.2), keep_ratio=True),
    *varied,
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(size, size), keep_ratio=True),
    load,
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
data = dict(type='CocoDataset', data_prefix=dict(img=images), metainfo=dict(classes=classes, palette=palette))
# images without objects are learned from, too
train_set = dict(data, ann_file=train_ann_file, filter_cfg=dict(filter_empty_gt=False), pipeline=train_pipeline)
val_set = dict(data, ann_file=val_ann_file, test_mode=True, pipeline=test_pipeline)
test_set = dict(val_set, ann_file=test_ann_file)
val_batch_size = 1
val_evaluator = dict(type='CocoMetric', ann_file=val_ann_file, metric=metric, classwise=num_classes > 1)
test_evaluator = dict(val_evaluator, ann_file=test_ann_file)
# {% if mosaic %}

mosaic_pipeline = [
    dict(type='LoadImageFromFile'),
    load,
    dict(type='Resize', scale=(size, size), keep_ratio=True),
    dict(type='CachedMosaic', img_scale=(size, size)),
    dict(type='RandomResize', scale=(2 * size, 2 * size), ratio_range=(0.56, 1.1), keep_ratio=True),
    dict(type='RandomCrop', crop_size=(size, size), allow_negative_crop=True),
    dict(type='FilterAnnotations', min_gt_bbox_wh=(2, 2), keep_empty=False),  # slivers of objects that are cut
    *varied,
]
train_set['pipeline'] = mosaic_pipeline
custom_hooks = [dict(type='icconv_mm.LastEpochsHook', epochs=whole_epochs, pipeline=train_pipeline)]
# {% endif %}
