# For segmentation: global convolutions on the last level of a dilated ResNet make four levels of stride 8, on which FPT
# is locality-constrained.
neck = [
    dict(type='icconv_mm.UnscathedPyramid', in_channels=2048, out_channels=256, kernel_sizes=(1, 7, 15, 31)),
    dict(type='icconv_mm.FPT', in_channels=[256, 256, 256, 256], out_channels=256, strides=[8, 8, 8, 8], window=5),
]
