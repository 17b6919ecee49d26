# FPT for segmentation: global convolutions on the last level make four levels of stride 8, on which FPT is
# locality-constrained; the head reads all of them at once. A config that inherits it adds the backbone at output
# stride 8, the size of a crop and the number of classes.
norm_cfg = dict(type='SyncBN', requires_grad=True)
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,
    ),
    neck=[
        dict(type='icconv_mm.UnscathedPyramid', in_channels=2048, out_channels=256, kernel_sizes=(1, 7, 15, 31)),
        dict(type='icconv_mm.FPT', in_channels=[256, 256, 256, 256], out_channels=256, strides=[8, 8, 8, 8], window=5),
    ],
    decode_head=dict(
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
    ),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
