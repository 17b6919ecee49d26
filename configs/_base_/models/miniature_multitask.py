# The network for all tasks with the heads of the miniature recipes of single tasks. A config that inherits it adds the
# backbone and the codec of its data as the decoder of poses.
_base_ = ['./multitask.py', '../values/miniature_narrow.py']

model = dict(
    neck=dict(type='mmdet.FPN', **_base_.narrow.fpn),
    tasks=dict(
        instance=dict(_base_.narrow.rcnn, roi_head=dict(**_base_.narrow.rcnn.roi_head, **_base_.narrow.mask_branch)),
        semantic=dict(decode_head=_base_.narrow.semantic_head),
        pose=dict(head=_base_.narrow.pose_head),
    ),
)
