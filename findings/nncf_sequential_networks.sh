#!/usr/bin/env bash
# nncf 3.4.0, torch 2.11.0.
# Good guess: nncf.quantize takes any torch network, so also an nn.Sequential, as classifiers and deployed chains often
# are.
# What happens: it keeps its hooks in a submodule of the network. An nn.Sequential calls all of its submodules one after
# the other, so the hooks as well, which have no forward: NotImplementedError. The same layers inside a module with a
# forward of its own are quantized.
# Who is hurt: whoever quantizes a network whose outermost module is an nn.Sequential.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install -q 'torch==2.11.0' 'nncf==3.4.0' 'numpy==1.26.4' 'setuptools==80.9.0'
cat > "$folder/try.py" <<'P'
import logging
import sys

import nncf
import torch
from torch import nn

nncf.set_log_level(logging.ERROR)
images = [torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(seed)) for seed in range(4)]


def layers():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3))


class Inside(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = layers()

    def forward(self, image):
        return self.layers(image)


def outcome(network):
    try:
        quantized = nncf.quantize(network.eval(), nncf.Dataset(images))
        with torch.no_grad():
            return f'a map of {tuple(quantized(images[0]).shape)}'
    except NotImplementedError as error:
        return f'NotImplementedError: {error}'


print('nncf', nncf.__version__, 'torch', torch.__version__)
bare, inside = outcome(layers()), outcome(Inside())
print('nn.Sequential:              ', bare)
print('nn.Sequential inside a module:', inside)
sys.exit(not (bare.startswith('NotImplementedError') and inside == 'a map of (1, 2, 4, 4)'))
P
"$python" "$folder/try.py" 2>&1 | grep -v -i warn
