#!/usr/bin/env bash
# mmsegmentation 1.2.2, mmengine 0.10.7, torch 2.13.0.
# Good guess: IoUMetric(ignore_index=0), which leaves the background out, also leaves out pixels of 255, which no class
# has, as padding and unlabelled pixels are in maps; a prediction without a mistake on all labelled pixels has an mIoU
# of 100.
# What happens: a pixel of 255 drops out of the annotated area but not out of the predicted one, and each prediction on
# it is a mistake of its class: mIoU 80 where a fifth of the predicted pixels lies there. With ignore_index=255 it is 100.
# Who is hurt: whoever excludes the background by the metric, on maps with unlabelled pixels, as most public sets have.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install -q 'torch==2.13.0' 'mmengine==0.10.7' 'mmcv-lite==2.1.0' 'mmsegmentation==1.2.2' \
  'setuptools==80.9.0' 'numpy==1.26.4' 'opencv-python-headless==4.11.0.86' 'prettytable==3.18.0'
cat > "$folder/try.py" <<'P'
import importlib.util
import sys
from importlib.metadata import version
from pathlib import Path

import mmengine
import torch

# the module of the metric alone: the package imports compiled operators
package = Path(importlib.util.find_spec('mmseg').origin).parent
spec = importlib.util.spec_from_file_location('iou_metric', package / 'evaluation/metrics/iou_metric.py')
module = type(sys)('mmseg.registry')
module.METRICS = mmengine.Registry('metrics')
sys.modules['mmseg.registry'] = module
iou_metric = importlib.util.module_from_spec(spec)
spec.loader.exec_module(iou_metric)

print(', '.join(f'{name} {version(name)}' for name in ('mmsegmentation', 'mmengine', 'torch')))
label = torch.tensor([[1, 1, 1, 1, 255, 2, 2, 2, 2, 255]])
found = torch.tensor([[1, 1, 1, 1, 1, 2, 2, 2, 2, 2]])  # right wherever there is a label
means = {}
for ignored in (0, 255):
    areas = iou_metric.IoUMetric.intersect_and_union(found, label, 3, ignored)
    metrics = iou_metric.IoUMetric.total_area_to_metrics(*areas)
    means[ignored] = float(100 * metrics['IoU'][1:].mean())
    print(f'ignore_index={ignored}: mIoU of the classes 1 and 2 is {means[ignored]:.1f}')
sys.exit(0 if abs(means[0] - 80) < 1e-3 and means[255] == 100 else 1)
P
"$python" -W ignore "$folder/try.py"
