_base_ = './retinanet_r50_fpn-sepc-lite_4xb4-1x_coco.py'
_deprecation_ = dict(
    expected='retinanet_r50_fpn-sepc-lite_4xb4-1x_coco.py',
    reference='CHANGELOG.md; version 0.3.0 is without this name',
)
