# High groups: bottlenecks of twice the width, 32 or 64 groups in every level.
backbone = dict(type='icconv_mm.PyConvHGResNet', depth=152)
weights = dict(type='Pretrained', checkpoint='checkpoints/pyconv_hgresnet152_imagenet.pth', prefix='backbone.')
pretrained = dict(**backbone, init_cfg=weights)
fine_tuned = dict(**pretrained, frozen_stages=1, norm_eval=True)
