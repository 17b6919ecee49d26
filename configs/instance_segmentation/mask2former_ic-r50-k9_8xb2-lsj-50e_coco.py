_base_ = './mask2former_ic-r50-k9-seg_8xb2-lsj-50e_coco.py'
_deprecation_ = dict(
    expected='mask2former_ic-r50-k9-seg_8xb2-lsj-50e_coco.py',
    reference='CHANGELOG.md; version 0.3.0 is without this name',
)
