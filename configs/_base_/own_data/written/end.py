loader = dict(num_workers=workers, persistent_workers=True)
in_order = dict(type='DefaultSampler', shuffle=False, round_up=False)
train_dataloader = dict(
    loader,
    batch_size=batch_size,
    drop_last=drop_last,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=train_set,
)
val_dataloader = dict(loader, batch_size=val_batch_size, sampler=in_order, dataset=val_set)
test_dataloader = dict(loader, batch_size=val_batch_size, sampler=in_order, dataset=test_set)

optim_wrapper = dict(optimizer=dict(lr=learning_rate))
auto_scale_lr = dict(base_batch_size=batch_size)
train_cfg = dict(max_epochs=epochs, val_interval=max(1, epochs // 20))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=warm_up),
    dict(
        type='CosineAnnealingLR',
        begin=epochs // 2,
        T_max=epochs - epochs // 2,
        eta_min_ratio=0.01,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
][warm_up < 2 :]  # a warm-up of one iteration would never end
