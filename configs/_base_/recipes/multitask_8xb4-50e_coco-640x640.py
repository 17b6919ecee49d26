# Boxes, masks, COCO-Stuff and poses from one network. A config that inherits it adds backbone and neck.
_base_ = ['../models/multitask.py', '../datasets/coco_multitask.py', '../schedules/multitask_50e.py']
custom_imports = dict(imports=['icconv_mm'], allow_failed_imports=False)

model = dict(loss_weights=dict(pose=100.0), tasks=dict(pose=dict(head=dict(decoder=_base_.codec))))
visualizer = dict(type='icconv_mm.MultiTaskVisualizer', vis_backends=[dict(type='LocalVisBackend')])
