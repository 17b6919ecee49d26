# The dense network (every dilation 1): the baseline, with torchvision's ResNet-101 keys.
backbone = dict(type='icconv_mm.ICResNet', depth=101, pattern='dense')
weights = dict(type='Pretrained', checkpoint='torchvision://resnet101')
fine_tuned = dict(**backbone, frozen_stages=1, norm_eval=True, init_cfg=weights)
