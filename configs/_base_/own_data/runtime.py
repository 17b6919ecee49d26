# What all configs for one's own images share: AdamW, one cycle in epochs, the best checkpoint and the last one kept.
# tools/train.py DATA writes a config that inherits it and says how long.
custom_imports = dict(imports=['icconv_mm'], allow_failed_imports=False)
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='icconv_mm.FusedAdamW', lr=1e-3, weight_decay=0.01),
    clip_grad=dict(max_norm=10, norm_type=2),
)
train_cfg = dict(by_epoch=True, max_epochs=50)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(enable=False, base_batch_size=8)

default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=20),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='icconv_mm.AtomicCheckpointHook', interval=1, max_keep_ckpts=1, rule='greater'),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    annotations=dict(type='icconv_mm.CopyAnnotationsHook'),
)
env_cfg = dict(
    cudnn_benchmark=False, mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0), dist_cfg=dict(backend='nccl')
)
log_processor = dict(type='LogProcessor', window_size=20, by_epoch=True)
log_level = 'INFO'
load_from = None
resume = False
randomness = dict(seed=0)
