_base_ = './freeanchor_r50_fpn-sepc_4xb4-1x_coco.py'
_deprecation_ = dict(
    expected='freeanchor_r50_fpn-sepc_4xb4-1x_coco.py',
    reference='CHANGELOG.md; version 0.3.0 is without this name',
)
