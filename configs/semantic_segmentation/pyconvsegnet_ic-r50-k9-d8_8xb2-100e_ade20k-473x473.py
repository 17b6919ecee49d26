_base_ = './pyconvsegnet_ic-r50-k9-seg-d8_8xb2-100e_ade20k-473x473.py'
_deprecation_ = dict(
    expected='pyconvsegnet_ic-r50-k9-seg-d8_8xb2-100e_ade20k-473x473.py',
    reference='CHANGELOG.md; version 0.3.0 is without this name',
)
