_base_ = './mask-rcnn_ic-r50-k9-seg_fpn_1x_coco.py'
_deprecation_ = dict(
    expected='mask-rcnn_ic-r50-k9-seg_fpn_1x_coco.py',
    reference='CHANGELOG.md; version 0.3.0 is without this name',
)
