# The released form: a pyramidal convolution, then a 1x1 one in every block.
backbone = dict(type='icconv_mm.PyConvResNet', depth=18)
weights = dict(type='Pretrained', checkpoint='checkpoints/pyconv_resnet18_imagenet.pth', prefix='backbone.')
pretrained = dict(**backbone, init_cfg=weights)
fine_tuned = dict(**pretrained, frozen_stages=1, norm_eval=True)
