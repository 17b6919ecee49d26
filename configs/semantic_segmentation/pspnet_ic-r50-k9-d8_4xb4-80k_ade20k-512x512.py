_base_ = './pspnet_ic-r50-k9-seg-d8_4xb4-80k_ade20k-512x512.py'
_deprecation_ = dict(
    expected='pspnet_ic-r50-k9-seg-d8_4xb4-80k_ade20k-512x512.py',
    reference='CHANGELOG.md; version 0.3.0 is without this name',
)
