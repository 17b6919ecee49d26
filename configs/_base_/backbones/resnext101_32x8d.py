# The plain ResNeXt-101 32x8d, with torchvision's keys.
backbone = dict(type='icconv_mm.ResNet', depth=101, groups=32, base_width=8)
weights = dict(type='Pretrained', checkpoint='torchvision://resnext101_32x8d')
pretrained = dict(**backbone, init_cfg=weights)
fine_tuned = dict(**pretrained, frozen_stages=1, norm_eval=True)
