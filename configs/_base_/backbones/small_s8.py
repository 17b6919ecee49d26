# `small` without maps at stride 4: its first stage has a stride as well, so its maps are at strides 8 to 64. A detector
# on it costs a prediction what YOLO26n does.
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
weights = None  # nobody publishes any
