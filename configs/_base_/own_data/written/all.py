heads, train_sets, val_sets, test_sets = _base_.heads, {}, {}, {}
val_evaluator, test_evaluator = [], []
load = dict(type='icconv_mm.LoadTaskAnnotations')
pack = train_pack = dict(type='icconv_mm.PackTaskInputs')
# {% if 'detection' in tasks or 'instance' in tasks %}

head = heads[objects_task]
head.rpn_head.update(in_channels=width, feat_channels=width)
head.rpn_head.anchor_generator.update(anchors)
head.roi_head.bbox_roi_extractor.out_channels = width
head.roi_head.bbox_head.update(in_channels=width, fc_out_channels=min(512, 4 * width), num_classes=num_classes)
head.train_cfg.rpn_proposal.update(nms_pre=2 * proposals, max_per_img=proposals)
head.train_cfg.rcnn.sampler.num = samples
head.test_cfg.rcnn.max_per_img = detections
load[objects_task] = dict(type='mmdet.LoadAnnotations', with_bbox=True)
pack[objects_task] = [dict(type='mmdet.PackDetInputs')]
data = dict(type='mmdet.CocoDataset', data_prefix=dict(img=images), metainfo=dict(classes=classes))
# images without objects are learned from, too
train_sets[objects_task] = dict(data, ann_file=train_ann_file, filter_cfg=dict(filter_empty_gt=False))
val_sets[objects_task] = dict(data, ann_file=val_ann_file)
test_sets[objects_task] = dict(data, ann_file=test_ann_file)
metric = dict(type='mmdet.CocoMetric', ann_file=val_ann_file, metric=['bbox'])
test_metric = dict(metric, ann_file=test_ann_file)
val_evaluator.append(dict(type='icconv_mm.TaskMetric', task=objects_task, metric=metric))
test_evaluator.append(dict(type='icconv_mm.TaskMetric', task=objects_task, metric=test_metric))
# {% endif %}
# {% if 'instance' in tasks %}
head.roi_head.mask_roi_extractor.out_channels = width
head.roi_head.mask_head.update(in_channels=width, conv_out_channels=width, num_classes=num_classes)
load[objects_task]['with_mask'] = True
metric['metric'].append('segm')
# {% endif %}
# {% if 'semantic' in tasks %}

heads.semantic.decode_head.update(in_channels=[width] * 4, num_classes=num_classes_semantic)
load['semantic'] = dict(type='mmseg.LoadAnnotations')
pack['semantic'] = [dict(type='mmseg.PackSegInputs')]
data = dict(
    type='icconv_mm.ListedSegDataset',
    data_prefix=dict(img_path=images),
    metainfo=dict(classes=classes_semantic, palette=palette_semantic),
)
train_sets['semantic'] = dict(data, ann_file=train_ann_file_semantic)
val_sets['semantic'] = dict(data, ann_file=val_ann_file_semantic)
test_sets['semantic'] = dict(data, ann_file=test_ann_file_semantic)
metric = dict(type='mmseg.IoUMetric', iou_metrics=['mIoU'])
val_evaluator.append(dict(type='icconv_mm.TaskMetric', task='semantic', metric=metric))
test_evaluator.append(val_evaluator[-1])
# {% endif %}
# {% if 'pose' in tasks %}

codec = dict(
    type='icconv_mm.AECodec',
    input_size=shape,
    heatmap_size=(shape[0] // 4, shape[1] // 4),
    sigma=2,
    detection_threshold=0.2,
)
heads.pose.head.update(in_channels=width, num_keypoints=num_keypoints_pose, decoder=codec)
pack['pose'] = [dict(type='icconv_mm.PackMultiScaleInputs')]
encode = [dict(type='icconv_mm.WarpPeople'), dict(type='mmpose.GenerateTarget', encoder=codec)]
train_pack = dict(pack, pose=[*encode, *pack['pose']])
data = dict(type='icconv_mm.BottomupCocoDataset', data_prefix=dict(img=images), metainfo=dict(keypoints=keypoints_pose))
train_sets['pose'] = dict(data, ann_file=train_ann_file_pose, keep_empty=True)
val_sets['pose'] = dict(data, ann_file=val_ann_file_pose)
test_sets['pose'] = dict(data, ann_file=test_ann_file_pose)
metric = dict(type='mmpose.CocoMetric', ann_file=val_ann_file_pose, score_mode='bbox', nms_mode='none')
test_metric = dict(metric, ann_file=test_ann_file_pose)
val_evaluator.append(dict(type='icconv_mm.TaskMetric', task='pose', metric=metric))
test_evaluator.append(dict(type='icconv_mm.TaskMetric', task='pose', metric=test_metric))
# {% endif %}

model = dict(
    backbone=backbone,
    neck=dict(in_channels=levels, out_channels=width),
    tasks=dict(_delete_=True, **{name: heads[name] for name in train_sets}),
    # raise that of a task that learns too little
    loss_weights={name: _base_.loss_weights[name] for name in train_sets},
)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    load,
    dict(
        type='RandomResize',
        scale=(size, size),
        ratio_range=(0.8, 1.25),
        keep_ratio=True,
        resize_type='mmdet.Resize',
    ),
    dict(type='mmdet.RandomCrop', crop_size=shape, crop_type='absolute', allow_negative_crop=True),
    dict(type='mmdet.Pad', size=shape),
    dict(type='mmdet.RandomFlip', prob=float(flip_prob)),
    train_pack,
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='mmdet.Resize', scale=(size, size), keep_ratio=True),
    load,
    pack,
]
one_set = dict(type='icconv_mm.MultiTaskDataset')
train_set = dict(
    type='icconv_mm.MultiTaskConcatDataset',
    datasets=[
        dict(one_set, datasets={name: train_sets[name] for name in group}, pipeline=train_pipeline)
        for group in same_images['train']
    ],
)
val_set, test_set = (
    dict(
        type='icconv_mm.MultiTaskConcatDataset',
        datasets=[
            dict(one_set, datasets={name: sets[name] for name in group}, pipeline=test_pipeline, test_mode=True)
            for group in groups
        ],
    )
    for sets, groups in ((val_sets, same_images['val']), (test_sets, same_images['test']))
)
# a task is evaluated where it has labels
val_evaluator, test_evaluator = (
    [metric for metric in evaluator if any(metric['task'] in group for group in same_images[split])]
    for split, evaluator in (('val', val_evaluator), ('test', test_evaluator))
)
val_batch_size = 1
