"""supervision: what its datasets write."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import ours
import supervision as sv

OUT = Path(sys.argv[1])
HALF = 'polygons of masks go through the middle of their edge pixels'
plain = [replace(item, crowd=False) for item in ours.BOXES]
masks = [replace(item, crowd=False) for item in ours.MASKS]


def dataset(name, objects, iscrowd=False):
    folder = OUT / name / 'data'
    paths = ours.draw(Path('images'), objects=objects)
    detections_of = {}
    for path in paths:
        items = ours.objects_of(path.name, objects)
        if not items:
            detections_of[str(path)] = sv.Detections.empty()
            continue
        boxes = np.array([(x, y, x + w, y + h) for x, y, w, h in (item.box for item in items)], float)
        detections = sv.Detections(boxes, class_id=np.array([ours.CLASSES.index(item.name) for item in items]))
        if items[0].pieces:
            detections.mask = np.array([ours.mask_of(item) for item in items], bool)
        if iscrowd:
            detections.data['iscrowd'] = np.array([int(item.crowd) for item in items])
        if any(item.degrees for item in items):
            corners = [ours.corners(item.box, item.degrees) for item in items]
            detections.data['xyxyxyxy'] = np.array(corners, float).reshape(-1, 4, 2)
        detections_of[str(path)] = detections
    return folder, sv.DetectionDataset(ours.CLASSES, list(detections_of), detections_of)


def paths(folder, form):
    images = dict(images_directory_path=str(folder / 'images'))
    return (
        images
        | {
            'coco': dict(annotations_path=str(folder / 'annotations.json')),
            'voc': dict(annotations_directory_path=str(folder / 'annotations')),
            'labelme': dict(annotations_directory_path=str(folder / 'images')),
            'yolo': dict(annotations_directory_path=str(folder / 'labels'), data_yaml_path=str(folder / 'data.yaml')),
        }[form]
    )


folder, data = dataset('coco_boxes', ours.BOXES)
data.as_coco(**paths(folder, 'coco'))
ours.write_truth(folder.parent, plain, 'COCO')

folder, data = dataset('coco_masks', ours.MASKS)
data.as_coco(**paths(folder, 'coco'))
crowds = [replace(item, crowd=bool(item.holes) or len(item.pieces) > 1) for item in ours.MASKS]
why = 'iscrowd is 1 for masks with holes or several pieces, unless the data has iscrowd'
ours.write_truth(folder.parent, crowds, 'COCO', iou=0.75, changes=[why, HALF])

folder, data = dataset('coco_masks_as_objects', ours.MASKS)
data.as_coco(**paths(folder, 'coco'))
options = dict(crowd_as_objects=True)
ours.write_truth(folder.parent, masks, 'COCO', iou=0.75, changes=[why, HALF], options=options)

folder, data = dataset('coco_iscrowd', ours.MASKS, iscrowd=True)
data.as_coco(**paths(folder, 'coco'))
filled = [replace(item, holes=()) for item in ours.MASKS]
why = 'holes are filled'
ours.write_truth(folder.parent, filled, 'COCO', iou=0.75, changes=[why, HALF])

folder, data = dataset('voc', ours.BOXES)
data.as_pascal_voc(**paths(folder, 'voc'))
decided = ['boxes count pixels from 1']
ours.write_truth(folder.parent, plain, 'Pascal VOC', classes=sorted(ours.CLASSES), decided=decided)

folder, data = dataset('yolo', ours.BOXES)
data.as_yolo(**paths(folder, 'yolo'))
ours.write_truth(folder.parent, plain, 'YOLO with names alone')

pieces = [
    replace(item, pieces=(piece,), holes=(), crowd=False, box=ours.around(piece))
    for item in ours.MASKS
    for piece in item.pieces
]
apart = 'each piece is an object'
folder, data = dataset('yolo_masks', ours.MASKS)
data.as_yolo(**paths(folder, 'yolo'))
ours.write_truth(folder.parent, pieces, 'YOLO with names alone', iou=0.75, box=1.0, changes=[apart, HALF])

folder, data = dataset('yolo_rotated', ours.ROTATED)
data.as_yolo(**paths(folder, 'yolo'), is_obb=True)
ours.write_truth(folder.parent, ours.polygons_of_rotated(), 'YOLO with rotated boxes', iou=0.9, box=1.0)

folder, data = dataset('voc_masks', ours.MASKS)
data.as_pascal_voc(**paths(folder, 'voc'))
more = dict(iou=0.7, box=1.0, decided=decided, changes=[apart, HALF], classes=sorted(ours.CLASSES))
ours.write_truth(folder.parent, pieces, 'Pascal VOC with polygons', **more)

folder, data = dataset('labelme', ours.MASKS)
data.as_labelme(**paths(folder, 'labelme'))
filled = [replace(item, holes=(), crowd=False) for item in ours.MASKS]
more = dict(iou=0.75, box=1.0, classes=sorted(ours.CLASSES), changes=['holes are filled', HALF])
ours.write_truth(folder.parent, filled, "labelme's JSON", **more)
