# mmpose's own baseline, with which IC-Conv compares too: another learning rate, 24 images per GPU.
_base_ = './ae_r50_8xb16-300e_coco-640x640.py'

train_dataloader = dict(batch_size=24)
optim_wrapper = dict(optimizer=dict(lr=1.5e-3))
auto_scale_lr = dict(base_batch_size=192)
