"""labelformat: what it converts from COCO."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import ours
from labelformat import formats

OUT = Path(sys.argv[1])
PLAIN = [replace(item, crowd=False) for item in ours.BOXES]
MASKS = [replace(item, crowd=False) for item in ours.MASKS]


def start(name, objects, kind):
    folder = OUT / name
    ours.draw(folder / 'data/images', objects=objects)
    source = Path('source.json')
    source.write_text(json.dumps(ours.as_coco(objects)))
    return folder, kind(source)


folder, given = start('coco_boxes', PLAIN, formats.COCOObjectDetectionInput)
formats.COCOObjectDetectionOutput(folder / 'data/annotations.json').save(given)
ours.write_truth(folder, PLAIN, 'COCO', changes=['annotations have no id'])

crowds = [replace(item, crowd=item.crowd or bool(item.holes)) for item in ours.MASKS]
folder, given = start('coco_masks', crowds, formats.COCOInstanceSegmentationInput)
formats.COCOInstanceSegmentationOutput(folder / 'data/annotations.json').save(given)
ours.write_truth(folder, crowds, 'COCO', iou=0.9, changes=['RLE needs iscrowd 1'])

folder, given = start('voc', PLAIN, formats.COCOObjectDetectionInput)
formats.PascalVOCObjectDetectionOutput(folder / 'data/annotations').save(given)
more = dict(classes=sorted(ours.CLASSES), decided=['boxes count pixels from 0'])
ours.write_truth(folder, PLAIN, 'Pascal VOC', **more)

folder, given = start('cvat', PLAIN, formats.COCOObjectDetectionInput)
(folder / 'data/annotations').mkdir()
formats.CVATObjectDetectionOutput(folder / 'data/annotations').save(given)
ours.write_truth(folder, PLAIN, 'CVAT')

folder, given = start('yolo', PLAIN, formats.COCOObjectDetectionInput)
formats.YOLOv8ObjectDetectionOutput(folder / 'data/data.yaml', 'train').save(given)
splits = dict.fromkeys(ours.SIZES, 'train')
ours.write_truth(folder, PLAIN, 'YOLO', splits=splits)

polygons = [item for item in MASKS if not item.holes]
folder, given = start('yolo_masks', polygons, formats.COCOInstanceSegmentationInput)
formats.YOLOv8InstanceSegmentationOutput(folder / 'data/data.yaml', 'train').save(given)
ours.write_truth(folder, polygons, 'YOLO', splits=splits, iou=0.9)
Path('source.json').unlink()
