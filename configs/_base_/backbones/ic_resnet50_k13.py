# Published pose pattern of IC-ResNet-50, dilations 1 to 6 (tools/download_patterns.py).
backbone = dict(type='icconv_mm.ICResNet', depth=50, pattern='human_pose/ic_resnet50_k13')
weights = dict(type='Pretrained', checkpoint='checkpoints/ic_resnet50_k13_imagenet.pth', prefix='backbone.')
pretrained = dict(**backbone, init_cfg=weights)
fine_tuned = dict(**pretrained, frozen_stages=1, norm_eval=True)
