#!/usr/bin/env bash
# mmengine 0.10.7, torch 2.13.0.
# Good guess: a training that was planned for 4 epochs and is resumed with max_epochs=8 and a cosine of T_max=8 has, in
# epochs 5 to 8, the learning rates of a training of 8 epochs.
# What happens: Runner gives the schedulers their whole state in the checkpoint, T_max and end included. The cosine of 4
# epochs is over, and the rate does not move in the epochs that were added, whatever the config says.
# Who is hurt: whoever lets a finished training go on for longer (--resume with another length).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install -q 'torch==2.13.0' 'mmengine==0.10.7' 'setuptools==80.9.0' 'numpy==1.26.4' 'opencv-python-headless==4.11.0.86'
cat > "$folder/try.py" <<'P'
import os
import sys

os.environ['TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD'] = '1'  # its own checkpoints hold more than weights
import mmengine
import torch
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner


class Line(BaseModel):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def forward(self, inputs, mode='loss'):
        return dict(loss=(self.layer(inputs) - 1).square().mean())


class Rates(Hook):
    def __init__(self):
        self.found = []

    def before_train_epoch(self, runner):
        self.found.append(round(runner.optim_wrapper.get_lr()['lr'][0], 4))


def train(name, epochs, **options):
    rates = Rates()
    Runner(
        model=Line(),
        work_dir=f'{sys.argv[1]}/{name}',
        train_dataloader=dict(
            dataset=[torch.ones(1)] * 2, batch_size=1, sampler=dict(type='DefaultSampler', shuffle=False)
        ),
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=1.0)),
        param_scheduler=dict(type='CosineAnnealingLR', T_max=epochs, eta_min=0.01, by_epoch=True, end=epochs),
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=epochs)),
        custom_hooks=[rates],
        log_level='ERROR',
        **options,
    ).train()
    return rates.found


print(f'mmengine {mmengine.__version__}, torch {torch.__version__}')
whole = train('whole', 8)
first = train('first', 4)
resumed = train('second', 8, load_from=f'{sys.argv[1]}/first/epoch_4.pth', resume=True)
print('rates of epochs 5 to 8, 8 epochs from the start:  ', whole[4:])
print('rates of epochs 5 to 8, 4 epochs, resumed for 8:  ', resumed)
sys.exit(not (len(set(whole[4:])) == 4 and len(resumed) == 4 and len(set(resumed)) == 1))
P
"$python" -W ignore "$folder/try.py" "$folder"
