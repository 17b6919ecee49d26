# Tested at the published scales; trained and validated as the config it inherits from.
_base_ = './ae_ic-r101-k13_8xb16-300e_coco-640x640.py'

test_pipeline = [
    dict(type='LoadImage'),
    dict(type='icconv_mm.PyramidResize', input_size=_base_.input_size, scales=[2, 1, 0.5]),
    dict(type='icconv_mm.PackPyramidInputs'),
]
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
