# IC-ResNet-18 with 24 to 192 channels, for short trainings and predictions on a CPU. Its runs are whole blocks of 16
# channels: exported, a detector has 75 instead of 105 convolutions. The package has its weights, of a detector.
backbone = dict(
    type='icconv_mm.ICResNet',
    depth=18,
    base_channels=24,
    stem_channels=24,
    pattern='geometric_d4',
    align=16,
    norm_eval=False,
)
weights = dict(type='Pretrained', checkpoint='icconv_mm://small_detection')
pretrained = dict(**backbone, init_cfg=weights)
fine_tuned = dict(pretrained, frozen_stages=1, norm_eval=True)
