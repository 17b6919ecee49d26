"""X-AnyLabeling: the JSON files that its window saves, and what its menu 'Export' makes of them."""

import json
import shutil
import sys
from dataclasses import replace
from math import radians
from pathlib import Path

import ours
from anylabeling.views.labeling.label_converter import LabelConverter
from anylabeling.views.labeling.label_file import LabelFile

OUT = Path(sys.argv[1])
SORTED = sorted(ours.CLASSES)
PIECES = [
    replace(item, pieces=(piece,), holes=(), crowd=False, box=ours.around(piece))
    for item in ours.MASKS
    for piece in item.pieces
]
NO_HOLES = 'has no holes and no crowds'
DIFFICULT = [replace(item, crowd=item.difficult) for item in ours.BOXES]
CLAMPED = 'objects end a pixel before the right and the lower edge of the image'
PLAIN = [replace(item, crowd=False) for item in ours.BOXES]


def shape(item, kind, points, label=None, group=None, difficult=None, **more):
    points = [[float(value) for value in point] for point in points]
    difficult = item.difficult if difficult is None else difficult
    entry = dict(kie_linking=[], label=label or item.name, score=None, points=points, group_id=group, description='')
    return entry | dict(difficult=difficult, shape_type=kind, flags={}, attributes={}, **more)


def pairs(polygon):
    return list(zip(polygon[::2], polygon[1::2]))


def boxes(number, item):
    return [shape(item, 'rectangle', pairs(ours.corners(item.box)), group=number if item.keypoints else None)]


def polygons(number, item):
    return [shape(item, 'polygon', pairs(piece), group=item.group) for piece in item.pieces]


def rotated(number, item):
    return [shape(item, 'rotation', pairs(ours.corners(item.box, item.degrees)), direction=radians(item.degrees))]


def poses(number, item):
    triples = zip(ours.KEYPOINTS, zip(*[iter(item.keypoints)] * 3))
    return boxes(number, item) + [
        shape(item, 'point', [(x, y)], name, number, difficult=v == 1) for name, (x, y, v) in triples if v
    ]


def save(folder, objects, shapes_of):
    for path in ours.draw(folder, objects=objects):
        shapes = [one for i, item in enumerate(ours.objects_of(path.name, objects)) for one in shapes_of(i, item)]
        width, height = ours.SIZES[path.name]
        file = str(path.with_suffix('.json'))
        LabelFile().save(file, shapes, path.name, image_height=height, image_width=width)


def converter(keypoints=False):
    Path('classes.txt').write_text('\n'.join(ours.CLASSES) + '\n')
    Path('pose.yaml').write_text(json.dumps(dict(has_visible=True, classes=dict(zebra=ours.KEYPOINTS))))
    return LabelConverter(pose_cfg_file='pose.yaml') if keypoints else LabelConverter(classes_file='classes.txt')


def yolo(name, objects, shapes_of, mode):
    save(Path('saved'), objects, shapes_of)
    folder = OUT / name
    ours.draw(folder / 'data/images', objects=objects)
    (folder / 'data/labels').mkdir()
    converter_of_mode = converter(mode == 'pose')
    for image in ours.SIZES:
        stem = Path(image).stem
        converter_of_mode.custom_to_yolo(f'saved/{stem}.json', str(folder / f'data/labels/{stem}.txt'), mode)
    shutil.copy('classes.txt', folder / 'data')
    return folder


def coco(name, objects, shapes_of, mode):
    save(Path('saved'), objects, shapes_of)
    folder = OUT / name
    paths = ours.draw(folder / 'data/images', objects=objects)
    (folder / 'data/annotations').mkdir()
    converter(mode == 'pose').custom_to_coco(list(map(str, paths)), 'saved', str(folder / 'data/annotations'), mode)
    return folder


def voc(name, objects, shapes_of, mode):
    save(Path('saved'), objects, shapes_of)
    folder = OUT / name
    paths = ours.draw(folder / 'data/images', objects=objects)
    (folder / 'data/annotations').mkdir()
    for path in paths:
        to = str(folder / f'data/annotations/{path.stem}.xml')
        converter().custom_to_voc(str(path), f'saved/{path.stem}.json', to, mode)
    return folder


def clamped(item):
    x, y, w, h = item.box
    width, height = ours.SIZES[item.image]
    return replace(item, box=(x, y, min(w, width - 1 - x), min(h, height - 1 - y)))


def resorted(objects, order):
    points = []
    for item in objects:
        triples = list(zip(*[iter(item.keypoints)] * 3))
        points.append(replace(item, keypoints=sum((triples[i] for i in order), ())))
    return points


save(OUT / 'boxes/data', ours.BOXES, boxes)
ours.write_truth(OUT / 'boxes', DIFFICULT, 'JSON of its own', classes=SORTED)

save(OUT / 'polygons/data', ours.MASKS, polygons)
joined = [replace(item, holes=(), crowd=False) for item in ours.MASKS]
ours.write_truth(OUT / 'polygons', joined, 'JSON of its own', classes=SORTED, iou=0.9, changes=[NO_HOLES])

save(OUT / 'rotated/data', ours.ROTATED, rotated)
ours.write_truth(OUT / 'rotated', ours.polygons_of_rotated(), 'JSON of its own', classes=SORTED, iou=0.9, box=1.0)

save(OUT / 'keypoints/data', ours.POSES, poses)
names = sorted(ours.KEYPOINTS)
objects = resorted(ours.POSES, [ours.KEYPOINTS.index(name) for name in names])
ours.write_truth(OUT / 'keypoints', objects, 'JSON of its own', classes=['zebra'], keypoints=names)

ours.write_truth(
    coco('coco_boxes', ours.BOXES, boxes, 'rectangle'), list(map(clamped, DIFFICULT)), 'COCO', changes=[CLAMPED]
)
ours.write_truth(coco('coco_polygons', ours.MASKS, polygons, 'polygon'), joined, 'COCO', iou=0.9, box=1.0)
more = dict(classes=['zebra'], keypoints=ours.KEYPOINTS, point=0.5, changes=['keypoints are cut to whole pixels'])
ours.write_truth(coco('coco_keypoints', ours.POSES, poses, 'pose'), ours.POSES, 'COCO', **more)

more = dict(classes=SORTED, decided=['boxes count pixels from 0'], changes=[CLAMPED])
ours.write_truth(voc('voc', ours.BOXES, boxes, 'rectangle'), list(map(clamped, DIFFICULT)), 'Pascal VOC', **more)
more = dict(
    classes=SORTED,
    iou=0.9,
    decided=['boxes count pixels from 0'],
    changes=['each piece is an object'],
)
ours.write_truth(voc('voc_polygons', ours.MASKS, polygons, 'polygon'), PIECES, 'Pascal VOC with polygons', **more)

ours.write_truth(
    yolo('yolo', ours.BOXES, boxes, 'hbb'), list(map(clamped, PLAIN)), 'YOLO with classes.txt', changes=[CLAMPED]
)
more = dict(iou=0.9, changes=['each piece is an object'])
ours.write_truth(yolo('yolo_polygons', ours.MASKS, polygons, 'seg'), PIECES, 'YOLO with classes.txt', **more)
more = dict(iou=0.9, box=1.0)
ours.write_truth(
    yolo('yolo_rotated', ours.ROTATED, rotated, 'obb'), ours.polygons_of_rotated(), 'YOLO with rotated boxes', **more
)
shutil.rmtree('saved')
