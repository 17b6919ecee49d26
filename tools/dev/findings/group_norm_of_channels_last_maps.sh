#!/usr/bin/env bash
# torch 2.11.0 on a CPU, nn.GroupNorm of float32 maps in channels_last.
# Good guess: a memory format changes no result beyond rounding; batch norm and layer norm keep to this, and so does
# group norm of NCHW maps.
# What happens: the kernel for channels_last takes the variance as the mean of squares less the square of the mean. With
# a mean of 30 standard deviations results are 1e-3 off, with 100 deviations 1e-2, with 1,000 1 and more; NCHW stays at
# 1e-5 and below 1e-3.
# Who is hurt: whoever runs a network with group norm (detection and segmentation heads, ConvNeXt-like stems) in
# channels_last for speed: a trained network's maps have such means. What helps: subtract a group's mean before.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check torch==2.11.0 numpy==2.2.6
"$folder/venv/bin/python" - <<'PYTHON'
import torch
from torch import nn

print('torch', torch.__version__)
torch.manual_seed(0)
off = {}
for mean in (0, 1, 30, 100, 1000):
    norm, maps = nn.GroupNorm(8, 64), mean + torch.randn(2, 64, 32, 32)
    with torch.no_grad():
        exact = nn.GroupNorm(8, 64).double()(maps.double())
        last = maps.to(memory_format=torch.channels_last)
        found = {
            'NCHW': norm(maps),
            'channels_last': norm(last),
            'less its mean': norm(last - last.mean((1, 2, 3), keepdim=True)),
        }
    off[mean] = {name: float((value - exact).abs().max()) for name, value in found.items()}
    print(f'mean {mean:4} deviations:', {name: f'{value:.0e}' for name, value in off[mean].items()})
assert off[0]['channels_last'] < 1e-5 and all(row['NCHW'] < 1e-3 for row in off.values())
assert off[100]['channels_last'] > 1e-3 and off[1000]['channels_last'] > 0.1
assert off[1000]['less its mean'] < 1e-3
print('group norm of channels_last maps loses what the mean hides')
PYTHON
