_base_ = './upernet_ic-r50-k9-seg_4xb4-160k_ade20k-512x512.py'
_deprecation_ = dict(
    expected='upernet_ic-r50-k9-seg_4xb4-160k_ade20k-512x512.py',
    reference='CHANGELOG.md; version 0.3.0 is without this name',
)
