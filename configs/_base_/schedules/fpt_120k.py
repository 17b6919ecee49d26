# The authors' schedule of FPT, which is Detectron's: SGD, 120,000 iterations of 16 images, steps at 80,000 and 100,000;
# biases learn twice as fast and do not decay, nor do group norms.
max_iters = 120000
train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters, val_interval=20000)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=0.05, momentum=0.9, weight_decay=0.0001),
    paramwise_cfg=dict(norm_decay_mult=0.0, custom_keys=dict(bias=dict(lr_mult=2.0, decay_mult=0.0))),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1 / 3, by_epoch=False, begin=0, end=501),  # whole at iteration 500
    dict(type='MultiStepLR', by_epoch=False, begin=0, end=max_iters, milestones=[80000, 100000], gamma=0.1),
]
auto_scale_lr = dict(enable=False, base_batch_size=16)

# for a runtime that counts epochs
iteration_hooks = dict(logger=dict(log_metric_by_epoch=False), checkpoint=dict(by_epoch=False, interval=20000))
