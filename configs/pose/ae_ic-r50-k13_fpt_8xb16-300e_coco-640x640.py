# FPT before the head, which reads the finest level, stride 4, where the heatmaps are: no deconvolutions.
_base_ = [
    '../_base_/recipes/ae_8xb16-300e_coco-640x640.py',
    '../_base_/backbones/ic_resnet50_k13.py',
    '../_base_/necks/fpt.py',
]

model = dict(
    backbone=dict(**_base_.pretrained, out_indices=(0, 1, 2, 3)),
    neck=dict(_base_.neck, num_outs=1),
    head=dict(in_channels=256, in_index=0, deconv_out_channels=None, deconv_kernel_sizes=None),
)
