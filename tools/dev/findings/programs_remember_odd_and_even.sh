#!/usr/bin/env bash
# torch 2.11.0 (2.13.0 no longer).
# Good guess: a network whose height and width torch.export took as dynamic, with an example of 64x96, runs at 65x97.
# What happens: its first MaxPool2d(3, stride=2, padding=1), the stem of every ResNet, lets the program keep whether the
# example's size was odd or even: torch computes the size of the pooled map with a remainder. Neither the export nor the
# file says so; 65x97 raises "Guard failed". A convolution of the same kernel, stride and padding has no such guard.
# Who is hurt: whoever exports a ResNet, or FPN's extra level of MaxPool2d(1, stride=2), and gives it images of any size.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install -q 'torch==2.11.0' 'numpy==2.4.6'
cat > "$folder/try.py" <<'P'
import torch
from torch.export import Dim, export

print('torch', torch.__version__)


def outcome(layer):
    free = {2: Dim.DYNAMIC, 3: Dim.DYNAMIC}
    program = export(layer, (torch.randn(1, 4, 64, 96),), dynamic_shapes=(free,)).module()
    results = {}
    for size in [(64, 96), (66, 98), (65, 97)]:
        try:
            results[size] = tuple(program(torch.randn(1, 4, *size)).shape[2:])
        except Exception as error:
            results[size] = f'{type(error).__name__}: {str(error).splitlines()[0]}'
    print(type(layer).__name__, results)
    return results


convolution = outcome(torch.nn.Conv2d(4, 4, 3, stride=2, padding=1))
pooling = outcome(torch.nn.MaxPool2d(3, stride=2, padding=1))
assert convolution == {(64, 96): (32, 48), (66, 98): (33, 49), (65, 97): (33, 49)}
assert pooling[64, 96] == (32, 48) and pooling[66, 98] == (33, 49) and 'Guard failed' in pooling[65, 97]
P
"$python" "$folder/try.py"
