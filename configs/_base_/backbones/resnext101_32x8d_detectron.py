# ResNeXt-101 32x8d with fixed batch norms and Detectron's weights, which know scaled BGR (tools/convert_checkpoint.py).
backbone = dict(
    type='icconv_mm.ResNet',
    depth=101,
    groups=32,
    base_width=8,
    norm_cfg=dict(type='BN', requires_grad=False),
)
weights = dict(type='Pretrained', checkpoint='checkpoints/resnext101_32x8d_detectron.pth', prefix='backbone.')
pretrained = dict(**backbone, init_cfg=weights)
fine_tuned = dict(**pretrained, frozen_stages=1, norm_eval=True)
pixels = dict(mean=[103.530, 116.280, 123.675], std=[57.375, 57.120, 58.395], bgr_to_rgb=False)
