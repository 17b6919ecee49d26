# The schedule of IC-Conv's detectors as far as it is known: 14 epochs of 16 images a step, steps at 9 and 12, one epoch
# of warm-up. Their files end at epoch 14; the rest is that of the framework that wrote them.
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=14, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.02, momentum=0.9, weight_decay=0.0001))
param_scheduler = [
    dict(type='LinearLR', start_factor=1 / 16, by_epoch=True, begin=0, end=1, convert_to_iter_based=True),
    dict(type='MultiStepLR', by_epoch=True, begin=0, end=14, milestones=[9, 12], gamma=0.1),
]
auto_scale_lr = dict(enable=False, base_batch_size=16)
