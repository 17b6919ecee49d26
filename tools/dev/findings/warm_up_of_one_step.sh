#!/usr/bin/env bash
# mmengine 0.10.7, torch 2.13.0.
# Good guess: a linear warm-up of N iterations reaches the full learning rate after N of them, with N = 1 after the first.
# What happens: with N = 1 (end=1) the rate stays at start_factor for the whole training, with end=2 it is full after one
# step. LinearLR spreads its rise over end - begin - 1 steps and divides nothing by zero: it takes no step at all.
# No message appears, the loss hardly moves.
# Who is hurt: whoever shortens a recipe for a trial, or scales its schedule to a few iterations.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install -q 'torch==2.13.0' 'mmengine==0.10.7' 'setuptools==80.9.0' 'numpy==1.26.4' 'opencv-python-headless==4.11.0.86'
cat > "$folder/try.py" <<'P'
import sys

import mmengine
import torch
from mmengine.optim import LinearLR, OptimWrapper

print(f'mmengine {mmengine.__version__}, torch {torch.__version__}')
found = {}
for end in (1, 2, 3, 10):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = LinearLR(OptimWrapper(optimizer), start_factor=0.01, begin=0, end=end, by_epoch=False)
    for _ in range(1000):
        optimizer.step()
        schedule.step()
    found[end] = optimizer.param_groups[0]['lr']
    print(f'end={end}: after 1000 steps the rate is {found[end]:g} of 1')
sys.exit(found != {1: 0.01, 2: 1.0, 3: 1.0, 10: 1.0})
P
"$python" -W ignore "$folder/try.py"
