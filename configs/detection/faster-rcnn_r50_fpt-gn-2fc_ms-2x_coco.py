# The authors' other box head: two fully connected layers, the first one for each level.
_base_ = './faster-rcnn_r50_fpt-gn_ms-2x_coco.py'

model = dict(roi_head=dict(bbox_head=dict(type='icconv_mm.PANet2FCBBoxHead')))
