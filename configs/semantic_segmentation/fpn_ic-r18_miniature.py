_base_ = [
    'mmseg::_base_/models/fpn_r50.py',
    '../_base_/values/miniature_narrow.py',
    '../_base_/backbones/ic_resnet18.py',
    '../_base_/datasets/miniature_semantic.py',
    '../_base_/schedules/miniature_mmseg.py',
]
custom_imports = dict(imports=['icconv_mm'], allow_failed_imports=False)
visualizer = dict(type='icconv_mm.SegVisualizer', **_base_.metainfo)

model = dict(
    pretrained=None,
    data_preprocessor=dict(size_divisor=32, seg_pad_val=0, test_cfg=dict(size_divisor=32)),  # class_weight has no 255
    backbone=dict(_delete_=True, **_base_.backbone),
    neck=_base_.narrow.fpn,
    decode_head=_base_.narrow.semantic_head,
)
optim_wrapper = dict(optimizer=dict(lr=2e-3))
train_dataloader = dict(batch_size=10)
