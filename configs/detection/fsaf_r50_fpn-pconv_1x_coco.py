_base_ = ['./fsaf_r50_fpn_1x_coco.py', '../_base_/necks/sepc_pconv.py']

model = dict(
    neck=[_base_.model.neck, _base_.neck],
    bbox_head=dict(type='icconv_mm.SplitFeatureHead', head_type='FSAFHead', stacked_convs=0),
)
