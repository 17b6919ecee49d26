# IC-ResNet-18 with 24 to 192 channels, for short trainings and predictions on a CPU; nobody publishes weights.
backbone = dict(type='icconv_mm.ICResNet', depth=18, base_channels=24, pattern='geometric_d4')
weights = None  # so there is no 'pretrained' and no 'fine_tuned' to inherit
