# ADE20K as the authors of PyConvSegNet train and test: images of their own size scaled by half to twice, in steps of
# .05, rotated, blurred and cropped; tested with a long side of 512; --tta: at six multiples of it, each also flipped.
_base_ = 'mmseg::_base_/datasets/ade20k.py'

scales = [[dict(type='Resize', scale_factor=0.5 + step / 20, keep_ratio=True)] for step in range(31)]
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', reduce_zero_label=True),
    dict(type='RandomChoice', transforms=scales),
    dict(type='RandomRotate', prob=0.5, degree=10, pad_val=(103.53, 116.28, 123.675)),
    dict(type='icconv_mm.RandomBlur'),
    dict(type='RandomFlip', prob=0.5),
    dict(type='RandomCrop', crop_size=(473, 473)),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(512, 512), keep_ratio=True),
    dict(type='LoadAnnotations', reduce_zero_label=True),
    dict(type='PackSegInputs'),
]
tta_scales = [0.5, 0.75, 1.0, 1.25, 1.5, 1.75]
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='TestTimeAug',
        transforms=[
            [dict(type='Resize', scale=(int(512 * scale), int(512 * scale)), keep_ratio=True) for scale in tta_scales],
            [dict(type='RandomFlip', prob=prob, direction='horizontal') for prob in (0.0, 1.0)],
            [dict(type='LoadAnnotations', reduce_zero_label=True)],
            [dict(type='PackSegInputs')],
        ],
    ),
]
train_dataloader = dict(batch_size=2, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
