# ResNet-50 with group norm and Detectron's weights, which know BGR as it is (tools/convert_checkpoint.py).
backbone = dict(type='icconv_mm.ResNet', depth=50, norm_cfg=dict(type='GN', num_groups=32))
weights = dict(type='Pretrained', checkpoint='checkpoints/resnet50_gn_detectron.pth', prefix='backbone.')
pretrained = dict(**backbone, init_cfg=weights)
fine_tuned = dict(**pretrained, frozen_stages=1)
pixels = dict(mean=[103.530, 116.280, 123.675], std=[1.0, 1.0, 1.0], bgr_to_rgb=False)
