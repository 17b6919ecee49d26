_base_ = './pyconvsegnet_pyconv-r50-d8_8xb2-100e_ade20k-473x473.py'

model = dict(backbone=dict(output_stride=16))
