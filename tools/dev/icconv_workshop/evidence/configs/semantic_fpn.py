# Semantic FPN, narrow, on four stages of a ResNet-18.
_base_ = '../../../../../configs/semantic_segmentation/fpn_ic-r18_miniature.py'

model = dict(
    backbone=dict(pattern='dense', base_channels=16, stem_channels=16),
    neck=dict(in_channels=[16, 32, 64, 128], out_channels=32),
    decode_head=dict(in_channels=[32, 32, 32, 32], channels=32),
)
train_dataloader = dict(batch_size=8)
