#!/usr/bin/env bash
# pycocotools 2.0.11.
# Good guess: COCOeval with params.maxDets = [100, 300, 1000], for images of many objects, measures all with 1000 boxes
# of an image and class, or all with 100.
# What happens: summarize() takes the first number, AP over all thresholds, at 100 whatever maxDets says, and AP50, AP75
# and those by size at the last of maxDets. 150 objects, all found exactly, have AP 0.66 and AP50 = AP75 = 1; without
# 100 in maxDets, as [1, 10, 1000], AP is -1.
# Who is hurt: whoever compares detectors on crowded images: AP cannot rise above what 100 boxes reach, while AP50, AP75
# and a mean of the classes' own precision in the same table do. mmdet's CocoMetric sets these maxDets by itself.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install -q 'pycocotools==2.0.11' 'numpy==2.4.6'
cat > "$folder/try.py" <<'P'
import contextlib
import io
import json
import sys
from importlib.metadata import version
from pathlib import Path

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

print(', '.join(f'{name} {version(name)}' for name in ('pycocotools', 'numpy')))
boxes = [[20.0 * (k % 15), 20.0 * (k // 15), 16.0, 16.0] for k in range(150)]
objects = [dict(id=k, image_id=1, category_id=1, bbox=box, area=256, iscrowd=0) for k, box in enumerate(boxes, 1)]
file = Path(sys.argv[1], 'truth.json')
images, categories = [dict(id=1, width=300, height=200)], [dict(id=1, name='square')]
file.write_text(json.dumps(dict(images=images, annotations=objects, categories=categories)))


def measured(limits):
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(file))
        found = truth.loadRes([dict(image_id=1, category_id=1, bbox=box, score=0.9) for box in boxes])
        run = COCOeval(truth, found, 'bbox')
        run.params.maxDets = limits
        run.evaluate()
        run.accumulate()
        run.summarize()
    return [round(float(value), 2) for value in run.stats[:3]]


seen = {}
for limits in ([1, 10, 100], [100, 300, 1000], [1, 10, 1000]):
    seen[str(limits)] = measured(limits)
    print(f'maxDets {limits}: AP, AP50, AP75 = {seen[str(limits)]}')
known = {'[1, 10, 100]': [0.66, 0.66, 0.66], '[100, 300, 1000]': [0.66, 1.0, 1.0], '[1, 10, 1000]': [-1.0, 1.0, 1.0]}
if seen != known:
    sys.exit(f'changed: expected {known}')
P
"$python" "$folder/try.py" "$folder"
