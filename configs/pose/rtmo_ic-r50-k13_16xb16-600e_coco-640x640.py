_base_ = [
    'mmpose::body_2d_keypoint/rtmo/coco/rtmo-l_16xb16-600e_coco-640x640.py',
    '../_base_/backbones/ic_resnet50_k13.py',
]
custom_imports = dict(imports=['icconv_mm'], allow_failed_imports=False)

model = dict(
    # the backbone's weights know normalised RGB
    data_preprocessor=dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True),
    backbone=dict(_delete_=True, **_base_.pretrained, out_indices=(1, 2, 3)),
    neck=dict(in_channels=[512, 1024, 2048]),
)
