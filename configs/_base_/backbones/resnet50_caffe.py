# Caffe's ResNet: stride in the 1x1 convolution, fixed batch norms, weights that know BGR as it is (docs/fpt.md).
backbone = dict(type='icconv_mm.ResNet', depth=50, style='caffe', norm_cfg=dict(type='BN', requires_grad=False))
weights = dict(type='Pretrained', checkpoint='checkpoints/resnet50_caffe_imagenet.pth', prefix='backbone.')
pretrained = dict(**backbone, init_cfg=weights)
fine_tuned = dict(**pretrained, frozen_stages=1, norm_eval=True)
pixels = dict(mean=[102.9801, 115.9465, 122.7717], std=[1.0, 1.0, 1.0], bgr_to_rgb=False)
