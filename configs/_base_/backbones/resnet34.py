# The plain network, the baseline, with torchvision's ResNet-34 keys.
backbone = dict(type='icconv_mm.ResNet', depth=34)
weights = dict(type='Pretrained', checkpoint='torchvision://resnet34')
pretrained = dict(**backbone, init_cfg=weights)
fine_tuned = dict(**pretrained, frozen_stages=1, norm_eval=True)
