# A narrow supernet on the miniature set: tools/search_pipeline.py searches its dilations and retrains the result.
_base_ = ['./fpn_ic-r18_miniature.py']

model = dict(
    backbone=dict(pattern=None, supernet_d_max=3, base_channels=32),
    neck=dict(in_channels=[32, 64, 128, 256], out_channels=32),
    decode_head=dict(in_channels=[32, 32, 32, 32], channels=32))
