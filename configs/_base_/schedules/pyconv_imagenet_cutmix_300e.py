# The augmented recipe's SGD: 1024 images a step, 300 epochs, mixed precision (on a CPU: tools/train.py --amp).
_base_ = 'mmpretrain::_base_/schedules/imagenet_bs256.py'

optim_wrapper = dict(type='AmpOptimWrapper', loss_scale='dynamic', optimizer=dict(lr=0.4))
param_scheduler = dict(milestones=[75, 150, 225])
train_cfg = dict(max_epochs=300)
auto_scale_lr = dict(base_batch_size=1024)
