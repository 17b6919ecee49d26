# `small` without maps at stride 4: its first stage has a stride as well, so its maps are at strides 8 to 64. A detector
# on it costs a prediction what YOLO26n does. Its weights are those of the package's detector.
backbone = dict(
    type='icconv_mm.ICResNet',
    depth=18,
    base_channels=24,
    stem_channels=24,
    strides=(2, 2, 2, 2),
    pattern='geometric_d4',
    align=16,
    norm_eval=False,
)
weights = dict(type='Pretrained', checkpoint='icconv_mm://small_s8_detection')
pretrained = dict(**backbone, init_cfg=weights)
fine_tuned = dict(pretrained, frozen_stages=1, norm_eval=True)
