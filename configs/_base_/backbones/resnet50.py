# The plain network, the baseline, with torchvision's ResNet-50 keys.
backbone = dict(type='icconv_mm.ResNet', depth=50)
weights = dict(type='Pretrained', checkpoint='torchvision://resnet50')
pretrained = dict(**backbone, init_cfg=weights)
fine_tuned = dict(**pretrained, frozen_stages=1, norm_eval=True)
