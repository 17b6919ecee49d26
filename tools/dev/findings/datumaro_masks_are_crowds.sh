#!/usr/bin/env bash
# datumaro 1.13.12, pycocotools 2.0.11.
# Good guess: three objects with masks of pixels are exported as COCO with iscrowd 0, above all where their attribute
# is_crowd is False. COCO allows the RLE of a single object.
# What happens: each mask that is written as RLE has iscrowd 1: all masks without the attribute, and with
# segmentation_mode='mask' also those whose is_crowd is False. Only polygons (which have no holes) are objects.
# Who is hurt: whoever evaluates or trains. COCOeval ignores crowds: perfect masks have an AP of -1 (nothing to find),
# and the loaders of detectors that leave crowds out train on images without objects.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install -q 'datumaro==1.13.12' 'pycocotools==2.0.11' 'numpy==2.4.6'
cat > "$folder/try.py" <<'P'
import contextlib
import io
import os
import sys
from importlib.metadata import version

import numpy as np
from datumaro.components.annotation import AnnotationType, LabelCategories, Mask
from datumaro.components.dataset import Dataset
from datumaro.components.dataset_base import DatasetItem
from datumaro.components.media import Image
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

os.chdir(sys.argv[1])
print(', '.join(f'{name} {version(name)}' for name in ('datumaro', 'pycocotools', 'numpy')))
masks = np.zeros((3, 100, 100), bool)
masks[0, 10:50, 10:50] = True
masks[0, 20:40, 20:40] = False  # a ring
masks[1, 60:90, 10:40] = True
masks[2, 10:40, 60:90] = True


def export(name, attributes, **options):
    made = [Mask(mask, label=0, group=i + 1, attributes=attributes) for i, mask in enumerate(masks)]
    media = Image.from_numpy(np.zeros((100, 100, 3), np.uint8))
    categories = {AnnotationType.label: LabelCategories.from_iterable(['ring'])}
    item = DatasetItem('one', subset='train', media=media, annotations=made)
    Dataset.from_iterable([item], categories=categories).export(name, 'coco_instances', save_media=True, **options)
    again = [annotation for item in Dataset.import_from(name, 'coco') for annotation in item.annotations]
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(f'{name}/annotations/instances_train.json')
        found = []
        for mask in masks:
            encoded = rle.encode(np.asfortranarray(mask.astype(np.uint8)))
            found.append(dict(image_id=coco.getImgIds()[0], category_id=1, segmentation=encoded, score=0.9))
        run = COCOeval(coco, coco.loadRes(found), 'segm')
        run.evaluate()
        run.accumulate()
        run.summarize()
    crowds = [annotation['iscrowd'] for annotation in coco.dataset['annotations']]
    rings = [int(coco.annToMask(annotation).sum()) for annotation in coco.dataset['annotations']]
    read = [annotation.attributes.get('is_crowd') for annotation in again if annotation.type != AnnotationType.bbox]
    print(f'attributes {attributes}, options {options}:')
    print(f'  iscrowd {crowds}, pixels {rings} of {[int(mask.sum()) for mask in masks]}')
    print(f'  is_crowd when datumaro reads it again {read}, AP of the right masks {run.stats[0]:.2f}')
    return crowds, rings, round(float(run.stats[0]), 2)


without = export('without', {})
kept = export('kept', {'is_crowd': False}, segmentation_mode='mask')
polygons = export('polygons', {'is_crowd': False})
right = [1200, 900, 900]
sys.exit(
    not (without == kept == ([1, 1, 1], right, -1.0) and polygons[0] == [0, 0, 0] and polygons[1][0] > right[0])
)
P
"$python" -W ignore "$folder/try.py" "$folder"
