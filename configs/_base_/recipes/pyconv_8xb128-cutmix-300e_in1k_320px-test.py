# Tested at 320 pixels; trained and validated as the recipe it inherits from. A config that inherits it adds the
# backbone.
_base_ = './pyconv_8xb128-cutmix-300e_in1k.py'

test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='ResizeEdge', scale=366, edge='short'),  # as much around the crop as 256 is around 224
    dict(type='CenterCrop', crop_size=320),
    dict(type='PackInputs'),
]
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
