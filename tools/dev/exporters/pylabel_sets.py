"""PyLabel: what it converts from COCO."""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import ours
from pylabel import importer

OUT = Path(sys.argv[1])
PLAIN = [replace(item, crowd=False) for item in ours.BOXES]


def dataset(objects):
    shutil.rmtree('source', ignore_errors=True)
    ours.draw(Path('source'), objects=objects)
    Path('source/ours.json').write_text(json.dumps(ours.as_coco(objects, first=0)))
    return importer.ImportCoco('source/ours.json', path_to_images='', name='ours')


folder = OUT / 'coco'
ours.draw(folder / 'data', objects=PLAIN)
dataset(PLAIN).export.ExportToCoco(str(folder / 'data/annotations.json'))
again = 'an object before an image without objects is written twice'
ours.write_truth(folder, PLAIN, 'COCO', changes=[again], decided=['1 annotations are there twice: read once'])

folder = OUT / 'voc'
ours.draw(folder / 'data', objects=PLAIN)
dataset(PLAIN).export.ExportToVoc(str(folder / 'data'))
more = dict(classes=sorted(ours.CLASSES), decided=['boxes count pixels from 0'])
ours.write_truth(folder, PLAIN, 'Pascal VOC', **more)

folder = OUT / 'yolo'
(folder / 'data').mkdir(parents=True)
data = dataset(PLAIN)
data.export.ExportToYoloV5(str(folder / 'data/labels'), 'dataset.yaml', copy_images=True, cat_id_index=0)
splits = dict.fromkeys(ours.SIZES, 'train')
ours.write_truth(folder, PLAIN, 'YOLO', splits=splits, changes=['val is the folder of train'])

folder = OUT / 'yolo_keypoints'
(folder / 'data').mkdir(parents=True)
to = dict(copy_images=True, cat_id_index=0, keypoints=True)
dataset(ours.POSES).export.ExportToYoloV5(str(folder / 'data/labels'), 'dataset.yaml', **to)
unnamed = 'the YAML has no kpt_shape'
ours.write_truth(folder, [], 'YOLO with keypoints', changes=[unnamed], refused='no YAML gives their kpt_shape')
shutil.rmtree('source')
