# The scales of FPT: trained at one of six short sides, 1200 twice as often, with long ones up to 1400; tested at 1000.
# Upstream's dataset stays, a config gives it these pipelines; masks are loaded only where there is a head for them.
fpt_resize = dict(
    type='RandomChoiceResize',
    scales=[(1400, short) for short in (1200, 1200, 1000, 800, 600, 400)],
    keep_ratio=True,
)
fpt_box_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    fpt_resize,
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
fpt_mask_pipeline = [
    fpt_box_pipeline[0],
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    *fpt_box_pipeline[2:],
]
fpt_test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(1400, 1000), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
