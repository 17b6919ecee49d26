_base_ = [
    'mmdet::_base_/models/mask-rcnn_r50_fpn.py',
    '../_base_/models/narrow_rcnn.py',
    '../_base_/backbones/ic_resnet18.py',
    '../_base_/datasets/miniature_instance.py',
    '../_base_/schedules/miniature_mmdet.py',
]
custom_imports = dict(imports=['icconv_mm'], allow_failed_imports=False)

model = dict(
    _base_.narrow_rcnn,
    backbone=dict(_delete_=True, **_base_.backbone),
    roi_head=dict(
        _base_.narrow_rcnn.roi_head,
        mask_roi_extractor=dict(out_channels=64, roi_layer=dict(sampling_ratio=2)),
        mask_head=dict(num_convs=2, in_channels=64, conv_out_channels=64, num_classes=6),
    ),
)
