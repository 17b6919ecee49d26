# Published pattern of IC-ResNet-101, dilations 1 to 4 (tools/download_patterns.py).
# One file serves detection and segmentation: the two published patterns are identical.
backbone = dict(type='icconv_mm.ICResNet', depth=101, pattern='detection/ic_resnet101_k9')
weights = dict(type='Pretrained', checkpoint='checkpoints/ic_resnet101_k9_imagenet.pth', prefix='backbone.')
pretrained = dict(**backbone, init_cfg=weights)
fine_tuned = dict(**pretrained, frozen_stages=1, norm_eval=True)
