# From scratch on the miniature set within minutes on a CPU: AdamW, one cycle, evaluation at the end.
max_iters = 260
train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters, val_interval=max_iters)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='icconv_mm.FusedAdamW', lr=1e-3, weight_decay=0.01),
    clip_grad=dict(max_norm=10, norm_type=2),
)
warm_up = max_iters // 10 + 1  # a recipe of another length says both anew: a base does not know who inherits it
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=warm_up),
    dict(
        type='CosineAnnealingLR',
        by_epoch=False,
        begin=warm_up,
        end=max_iters,
        T_max=max_iters - warm_up,
        eta_min_ratio=0.01,
    ),
]

# For the runtime of a library: miniature_mmdet.py, miniature_mmseg.py, or the config itself.
iteration_hooks = dict(
    logger=dict(type='LoggerHook', interval=10, log_metric_by_epoch=False),
    # at the end alone: a library's runtime would save at every iteration
    checkpoint=dict(type='icconv_mm.AtomicCheckpointHook', by_epoch=False, interval=-1, max_keep_ckpts=1),
)
iteration_log = dict(type='LogProcessor', window_size=10, by_epoch=False)
randomness = dict(seed=0)
