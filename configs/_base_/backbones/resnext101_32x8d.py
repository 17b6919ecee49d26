# The dense ResNeXt-101 32x8d (every dilation 1), with torchvision's keys.
backbone = dict(type='icconv_mm.ICResNeXt', depth=101, groups=32, base_width=8, pattern='dense')
weights = dict(type='Pretrained', checkpoint='torchvision://resnext101_32x8d')
fine_tuned = dict(**backbone, frozen_stages=1, norm_eval=True, init_cfg=weights)
