# The warm-up of SEPC's authors: from a third of the learning rate to the whole at iteration 500.
sepc_warm_up = dict(type='LinearLR', start_factor=1 / 3, by_epoch=False, begin=0, end=501)
