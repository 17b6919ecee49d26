# The plain network, the baseline, with torchvision's ResNet-18 keys.
backbone = dict(type='icconv_mm.ResNet', depth=18)
weights = dict(type='Pretrained', checkpoint='torchvision://resnet18')
pretrained = dict(**backbone, init_cfg=weights)
fine_tuned = dict(**pretrained, frozen_stages=1, norm_eval=True)
