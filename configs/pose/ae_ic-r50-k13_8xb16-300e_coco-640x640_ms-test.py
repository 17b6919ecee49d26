# Tested at the published scales; trained and validated as the config it inherits from.
_base_ = './ae_ic-r50-k13_8xb16-300e_coco-640x640.py'

test_pipeline = [_base_.test_pipeline[0], dict(_base_.test_pipeline[1], scales=[2, 1, 0.5]), _base_.test_pipeline[2]]
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
