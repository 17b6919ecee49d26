# For segmentation: global convolutions on the last level of a dilated ResNet make four levels of stride 8, on which FPT
# is locality-constrained.
neck = [
    dict(type='icconv_mm.UnscathedPyramid', in_channels=2048, out_channels=256, kernel_sizes=(1, 7, 15, 31)),
    dict(type='icconv_mm.FPT', in_channels=[256, 256, 256, 256], out_channels=256, strides=[8, 8, 8, 8], window=5),
]
# The dilated ResNet before it, at output stride 8, and the head after it, which reads all levels at once.
stride_8 = dict(
    strides=(1, 2, 1, 1),
    dilations=(1, 1, 2, 4),
    contract_dilation=True,
    norm_cfg=dict(type='SyncBN', requires_grad=True),
)
all_levels_head = dict(
    type='FCNHead',
    in_channels=[256, 256, 256, 256],
    in_index=[0, 1, 2, 3],
    input_transform='resize_concat',
    channels=256,
    num_convs=1,
    concat_input=False,
    dropout_ratio=0.1,
    norm_cfg=dict(type='GN', num_groups=32),
    align_corners=False,
    loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0),
)
