# FPT for segmentation maps, narrow, behind the unscathed pyramid, on three stages of a ResNet-18 at output stride 8.
_base_ = '../../../../../configs/semantic_segmentation/ufp-fpt_ic-r18_miniature.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='icconv_mm.ICResNet',
        depth=18,
        pattern='dense',
        base_channels=32,
        stem_channels=32,
        num_stages=3,
        strides=(1, 2, 1),
        dilations=(1, 1, 2),
        out_indices=(2,),
    ),
)
model['neck'] = [dict(_base_.model.neck[0], in_channels=128), _base_.model.neck[1]]
