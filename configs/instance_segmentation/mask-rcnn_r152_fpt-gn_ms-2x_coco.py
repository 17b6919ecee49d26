_base_ = ['../_base_/recipes/mask-rcnn_fpt-gn_ms-2x_coco.py', '../_base_/backbones/resnet152_caffe.py']

model = dict(data_preprocessor=_base_.pixels, backbone=dict(_delete_=True, **_base_.fine_tuned))
