# Published pattern of IC-ResNeXt-101 32x4d, dilations 1 to 4, counted in groups (tools/download_patterns.py).
backbone = dict(
    type='icconv_mm.ICResNeXt', depth=101, groups=32, base_width=4, pattern='detection/ic_resnext101_32x4d_k9'
)
weights = dict(type='Pretrained', checkpoint='checkpoints/ic_resnext101_32x4d_k9_imagenet.pth', prefix='backbone.')
pretrained = dict(**backbone, init_cfg=weights)
fine_tuned = dict(**pretrained, frozen_stages=1, norm_eval=True)
