# The plain network, the baseline, with torchvision's ResNet-101 keys.
backbone = dict(type='icconv_mm.ResNet', depth=101)
weights = dict(type='Pretrained', checkpoint='torchvision://resnet101')
fine_tuned = dict(**backbone, frozen_stages=1, norm_eval=True, init_cfg=weights)
