# IC-ResNet-18 with 24 to 192 channels, for short trainings and predictions on a CPU; nobody publishes weights. Its runs
# are whole blocks of 16 channels: exported, a detector has 75 instead of 105 convolutions.
backbone = dict(
    type='icconv_mm.ICResNet',
    depth=18,
    base_channels=24,
    stem_channels=24,
    pattern='geometric_d4',
    align=16,
    norm_eval=False,
)
weights = None  # so there is no 'pretrained' and no 'fine_tuned' to inherit
