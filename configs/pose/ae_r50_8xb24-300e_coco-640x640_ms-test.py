# Tested at the published scales; trained and validated as the config it inherits from.
_base_ = './ae_r50_8xb24-300e_coco-640x640.py'

test_dataloader = dict(dataset=dict(pipeline=_base_.ms_test_pipeline))
