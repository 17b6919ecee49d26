#!/usr/bin/env bash
# supervisely 6.74.51, pycocotools 2.0.11.
# Good guess: a rectangle of 8 x 8 pixels (columns 10 to 17, width 8 and area 64 for supervisely itself) is exported as
# COCO with bbox [10, 10, 8, 8], and a mask of the same pixels too.
# What happens: sly.convert.to_coco writes [10, 10, 7, 7]: the last column less the first. The area beside it stays 64.
# A rectangle of one column has a box of width 0. to_yolo keeps the 8 pixels, but rounds the middle down.
# Who is hurt: whoever trains on or measures with small objects. Perfect boxes of 8 x 8 have an IoU of 0.77 with the
# export, and fail at thresholds of 0.8 and more.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install -q 'supervisely==6.74.51' 'pycocotools==2.0.11' 'numpy==2.4.6'
cat > "$folder/try.py" <<'P'
import contextlib
import glob
import io
import json
import os
import sys
from importlib.metadata import version

import numpy as np
import supervisely as sly
from PIL import Image
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

os.chdir(sys.argv[1])
sly.logger.setLevel('ERROR')
print(', '.join(f'{name} {version(name)}' for name in ('supervisely', 'pycocotools', 'numpy')))
BOX, MASK = sly.ObjClass('box', sly.Rectangle), sly.ObjClass('mask', sly.Bitmap)


def project(name, labels, classes):
    made = sly.Project(name, sly.OpenMode.CREATE)
    made.set_meta(sly.ProjectMeta(sly.ObjClassCollection(classes)))
    Image.new('RGB', (100, 100)).save('image.png')
    made.create_dataset('set').add_item_file('image.png', 'image.png', ann=sly.Annotation((100, 100), labels))
    return made


pixels = np.zeros((100, 100), bool)
pixels[10:18, 10:18] = True
labels = [
    sly.Label(sly.Rectangle(10, 10, 17, 17), BOX),  # top, left, bottom, right: the last ones are inside
    sly.Label(sly.Bitmap(pixels), MASK),
    sly.Label(sly.Rectangle(50, 40, 69, 40), BOX),  # one column of 20 pixels
]
for label in labels[::2]:
    print(f'rectangle of supervisely: width {label.geometry.width}, area {label.geometry.area:g}')
with contextlib.redirect_stdout(io.StringIO()):
    sly.convert.to_coco(project('first', labels, [BOX, MASK]), dest_dir='coco', log_progress=False)
    (path,) = glob.glob('coco/**/*instances.json', recursive=True)
    coco = COCO(path)
written = sorted(coco.dataset['annotations'], key=lambda entry: (entry['bbox'], bool(entry['segmentation'])))
for annotation in written:
    print(f"COCO: bbox {annotation['bbox']}, area {annotation['area']:g}", end='')
    if annotation['segmentation']:
        box = rle.toBbox(coco.annToRLE(annotation)).tolist()
        print(f', box of its mask by pycocotools {box}', end='')
    print()

with contextlib.redirect_stdout(io.StringIO()):
    sly.convert.to_coco(project('second', labels[:1], [BOX]), dest_dir='one', log_progress=False)
    (path,) = glob.glob('one/**/*instances.json', recursive=True)
    coco = COCO(path)
    prediction = dict(image_id=coco.getImgIds()[0], category_id=coco.getCatIds()[0], bbox=[10, 10, 8, 8], score=0.9)
    run = COCOeval(coco, coco.loadRes([prediction]), 'bbox')
    run.evaluate()
    run.accumulate()
    run.summarize()
    overlap = float(run.ious[prediction['image_id'], prediction['category_id']][0][0])
print(f'the right box against the export: IoU {overlap:.4f}, AP {run.stats[0]:.2f} (1.00 is perfect)')

with contextlib.redirect_stdout(io.StringIO()):
    sly.convert.to_yolo(project('third', labels[:1], [BOX]), dest_dir='yolo', log_progress=False)
    (path,) = glob.glob('yolo/**/labels/**/*.txt', recursive=True)
with open(path) as file:
    x, y, w, h = (100 * float(value) for value in file.read().split()[1:])
print(f'YOLO: columns {x - w / 2:g} to {x + w / 2:g}, rows {y - h / 2:g} to {y + h / 2:g} (10 to 18 is right)')
boxes = [annotation['bbox'] for annotation in written]
sys.exit(
    not (
        boxes == [[10, 10, 7, 7], [10, 10, 7, 7], [40, 50, 0, 19]]
        and abs(overlap - 49 / 64) < 1e-6
        and run.stats[0] < 0.7
        and abs(x - 13) < 1e-6
    )
)
P
"$python" -W ignore "$folder/try.py" "$folder"
