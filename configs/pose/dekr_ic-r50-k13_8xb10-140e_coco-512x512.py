_base_ = [
    'mmpose::body_2d_keypoint/dekr/coco/dekr_hrnet-w32_8xb10-140e_coco-512x512.py',
    '../_base_/backbones/ic_resnet50_k13.py',
]
custom_imports = dict(imports=['icconv_mm'], allow_failed_imports=False)

# The head reads all stages at stride 4, concatenated: 256 + 512 + 1024 + 2048 channels.
model = dict(
    backbone=dict(_delete_=True, **_base_.pretrained, out_indices=(0, 1, 2, 3)),
    head=dict(in_channels=3840),
)
