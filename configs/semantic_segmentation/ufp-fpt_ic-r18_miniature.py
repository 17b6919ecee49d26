# The segmentation form of FPT on the miniature set: three levels of stride 8, small windows.
_base_ = [
    '../_base_/models/ufp_fpt.py',
    '../_base_/values/miniature_narrow.py',
    '../_base_/backbones/ic_resnet18.py',
    '../_base_/datasets/miniature_semantic.py',
    '../_base_/schedules/miniature_mmseg.py',
]
custom_imports = dict(imports=['icconv_mm'], allow_failed_imports=False)
visualizer = dict(type='icconv_mm.SegVisualizer', **_base_.metainfo)

norm_cfg = dict(type='GN', num_groups=8)
model = dict(
    data_preprocessor=dict(size_divisor=32, seg_pad_val=0, test_cfg=dict(size_divisor=32)),  # padding is background
    backbone=dict(**_base_.backbone, output_stride=8, contract_dilation=True),
    neck=[
        dict(
            type='icconv_mm.UnscathedPyramid',
            in_channels=512,
            out_channels=32,
            kernel_sizes=(1, 7, 15),
            norm_cfg=norm_cfg,
        ),
        dict(
            type='icconv_mm.FPT',
            in_channels=[32, 32, 32],
            out_channels=32,
            strides=[8, 8, 8],
            window=5,
            drop_prob=0.0,
            norm_cfg=norm_cfg,
        ),
    ],
    decode_head=dict(
        in_channels=[32, 32, 32], in_index=[0, 1, 2], channels=64, dropout_ratio=0.0, num_classes=7, norm_cfg=norm_cfg
    ),
)
optim_wrapper = dict(optimizer=dict(lr=2e-3))
train_dataloader = dict(batch_size=10)
