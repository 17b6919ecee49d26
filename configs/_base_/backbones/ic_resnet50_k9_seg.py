# Published segmentation pattern of IC-ResNet-50, dilations 1 to 4 (tools/download_patterns.py).
backbone = dict(type='icconv_mm.ICResNet', depth=50, pattern='segmentation/ic_resnet50_k9')
weights = dict(type='Pretrained', checkpoint='checkpoints/ic_resnet50_k9_seg_imagenet.pth', prefix='backbone.')
pretrained = dict(**backbone, init_cfg=weights)
fine_tuned = dict(**pretrained, frozen_stages=1, norm_eval=True)
