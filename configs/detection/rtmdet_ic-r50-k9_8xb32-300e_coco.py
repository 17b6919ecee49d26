_base_ = ['mmdet::rtmdet/rtmdet_l_8xb32-300e_coco.py', '../_base_/backbones/ic_resnet50_k9.py']
custom_imports = dict(imports=['icconv_mm'], allow_failed_imports=False)

norm_cfg = dict(type='SyncBN')
model = dict(
    # the backbone's weights know normalised RGB
    data_preprocessor=dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True),
    backbone=dict(_delete_=True, **_base_.pretrained, out_indices=(1, 2, 3), norm_cfg=norm_cfg, norm_eval=False),
    # on 512, 1024 and 2048 channels the neck alone would have 86 M parameters
    neck=[
        dict(
            type='ChannelMapper',
            in_channels=[512, 1024, 2048],
            out_channels=256,
            kernel_size=1,
            norm_cfg=norm_cfg,
            act_cfg=None,
        ),
        dict(_base_.model.neck, in_channels=[256, 256, 256]),
    ],
)
