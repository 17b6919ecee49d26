# The plain network, the baseline, with torchvision's ResNet-101 keys.
backbone = dict(type='icconv_mm.ResNet', depth=101)
weights = dict(type='Pretrained', checkpoint='torchvision://resnet101')
pretrained = dict(**backbone, init_cfg=weights)
fine_tuned = dict(**pretrained, frozen_stages=1, norm_eval=True)
