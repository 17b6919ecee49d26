_base_ = './pyconvsegnet_pyconv-r50-d8_4xb2-80k_cityscapes-769x769.py'

model = dict(backbone=dict(output_stride=16))
