"""The miniature recipe of one network for all tasks, and those of the single tasks whose heads it has."""

MULTITASK = 'multitask/multitask_ic-r18_fpn_miniature.py'
SINGLE = {
    'instance': 'instance_segmentation/mask-rcnn_ic-r18_fpn_miniature.py',
    'semantic': 'semantic_segmentation/fpn_ic-r18_miniature.py',
    'pose': 'pose/ae_ic-r18_miniature.py',
}
