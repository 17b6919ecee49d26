# Kernels up to 9x9 in the first stage, 3x3 in the last.
backbone = dict(type='icconv_mm.PyConvResNet', depth=50)
weights = dict(type='Pretrained', checkpoint='checkpoints/pyconv_resnet50_imagenet.pth', prefix='backbone.')
pretrained = dict(**backbone, init_cfg=weights)
fine_tuned = dict(**pretrained, frozen_stages=1, norm_eval=True)
