"""supervision: what its datasets write."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import ours
import supervision as sv

OUT = Path(sys.argv[1])
HALF = 'polygons of masks go through the middle of their edge pixels'
plain = [replace(each, crowd=False) for each in ours.BOXES]
masks = [replace(each, crowd=False) for each in ours.MASKS]


def dataset(name, objects, iscrowd=False):
    folder = OUT / name / 'data'
    paths = ours.draw(Path('images'), objects=objects)
    found = {}
    for path in paths:
        own = ours.objects_of(path.name, objects)
        if not own:
            found[str(path)] = sv.Detections.empty()
            continue
        boxes = np.array([(x, y, x + w, y + h) for x, y, w, h in (each.box for each in own)], float)
        made = sv.Detections(boxes, class_id=np.array([ours.CLASSES.index(each.name) for each in own]))
        if own[0].pieces:
            made.mask = np.array([ours.mask_of(each) for each in own], bool)
        if iscrowd:
            made.data['iscrowd'] = np.array([int(each.crowd) for each in own])
        if any(each.degrees for each in own):
            corners = [ours.corners(each.box, each.degrees) for each in own]
            made.data['xyxyxyxy'] = np.array(corners, float).reshape(-1, 4, 2)
        found[str(path)] = made
    return folder, sv.DetectionDataset(ours.CLASSES, list(found), found)


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


folder, made = dataset('coco_boxes', ours.BOXES)
made.as_coco(**paths(folder, 'coco'))
ours.write_truth(folder.parent, plain, 'COCO')

folder, made = dataset('coco_masks', ours.MASKS)
made.as_coco(**paths(folder, 'coco'))
crowds = [replace(each, crowd=bool(each.holes) or len(each.pieces) > 1) for each in ours.MASKS]
why = 'iscrowd is 1 for masks with holes or several pieces, unless the data has iscrowd'
ours.write_truth(folder.parent, crowds, 'COCO', iou=0.75, changes=[why, HALF])

folder, made = dataset('coco_masks_as_objects', ours.MASKS)
made.as_coco(**paths(folder, 'coco'))
options = dict(crowd_as_objects=True)
ours.write_truth(folder.parent, masks, 'COCO', iou=0.75, changes=[why, HALF], options=options)

folder, made = dataset('coco_iscrowd', ours.MASKS, iscrowd=True)
made.as_coco(**paths(folder, 'coco'))
filled = [replace(each, holes=()) for each in ours.MASKS]
why = 'holes are filled'
ours.write_truth(folder.parent, filled, 'COCO', iou=0.75, changes=[why, HALF])

folder, made = dataset('voc', ours.BOXES)
made.as_pascal_voc(**paths(folder, 'voc'))
decided = ['boxes count pixels from 1']
ours.write_truth(folder.parent, plain, 'Pascal VOC', classes=sorted(ours.CLASSES), decided=decided)

folder, made = dataset('yolo', ours.BOXES)
made.as_yolo(**paths(folder, 'yolo'))
ours.write_truth(folder.parent, plain, 'YOLO with names alone')

pieces = [
    replace(each, pieces=(piece,), holes=(), crowd=False, box=ours.around(piece))
    for each in ours.MASKS
    for piece in each.pieces
]
apart = 'each piece is an object'
folder, made = dataset('yolo_masks', ours.MASKS)
made.as_yolo(**paths(folder, 'yolo'))
ours.write_truth(folder.parent, pieces, 'YOLO with names alone', iou=0.75, box=1.0, changes=[apart, HALF])

folder, made = dataset('yolo_rotated', ours.ROTATED)
made.as_yolo(**paths(folder, 'yolo'), is_obb=True)
ours.write_truth(folder.parent, ours.polygons_of_rotated(), 'YOLO with rotated boxes', iou=0.9, box=1.0)

folder, made = dataset('voc_masks', ours.MASKS)
made.as_pascal_voc(**paths(folder, 'voc'))
more = dict(iou=0.7, box=1.0, decided=decided, changes=[apart, HALF], classes=sorted(ours.CLASSES))
ours.write_truth(folder.parent, pieces, 'Pascal VOC with polygons', **more)

folder, made = dataset('labelme', ours.MASKS)
made.as_labelme(**paths(folder, 'labelme'))
filled = [replace(each, holes=(), crowd=False) for each in ours.MASKS]
more = dict(iou=0.75, box=1.0, classes=sorted(ours.CLASSES), changes=['holes are filled', HALF])
ours.write_truth(folder.parent, filled, "labelme's JSON", **more)
