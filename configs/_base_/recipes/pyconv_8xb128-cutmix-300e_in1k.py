# ImageNet training with CutMix, dropout and large batches, longer. A config that inherits it adds the backbone.
_base_ = './pyconv_8xb32-90e_in1k.py'

model = dict(
    type='icconv_mm.MixedClassifier',  # one number of classes, that of the head
    head=dict(
        type='icconv_mm.DropoutLinearClsHead',
        dropout_ratio=0.2,
        loss=dict(use_soft=True),  # CutMix gives a share to each of two classes
    ),
    train_cfg=dict(augments=dict(type='CutMix', alpha=1.0)),
)
train_dataloader = dict(batch_size=128)

# 1024 images a step, mixed precision (on a CPU: tools/train.py --amp)
optim_wrapper = dict(type='AmpOptimWrapper', loss_scale='dynamic', optimizer=dict(lr=0.4))
param_scheduler = dict(_delete_=True, type='CosineAnnealingLR', by_epoch=True, begin=0, end=300, T_max=300)
train_cfg = dict(max_epochs=300)
auto_scale_lr = dict(base_batch_size=1024)
