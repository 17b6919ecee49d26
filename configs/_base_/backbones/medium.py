# IC-ResNet-18 with 40 to 320 channels: between small and ic_resnet18; nobody publishes weights.
backbone = dict(type='icconv_mm.ICResNet', depth=18, base_channels=40, pattern='geometric_d4')
weights = None  # so there is no 'pretrained' and no 'fine_tuned' to inherit
