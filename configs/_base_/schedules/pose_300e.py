# The published bottom-up schedule: Adam, 300 epochs, steps at 200 and 260, 500 iterations of warm-up.
_base_ = 'mmpose::_base_/default_runtime.py'

train_cfg = dict(max_epochs=300, val_interval=10)

optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='Adam', lr=1e-3))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=501),
    dict(type='MultiStepLR', by_epoch=True, begin=0, end=300, milestones=[200, 260], gamma=0.1),
]
auto_scale_lr = dict(base_batch_size=128)  # 8 GPUs with 16 images each

default_hooks = dict(checkpoint=dict(max_keep_ckpts=3))
