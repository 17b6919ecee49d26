"""Label Studio: what the converter of its SDK, which its server uses, exports of tasks; brushes by its own encoder."""

import json
import shutil
import sys
from dataclasses import replace
from math import cos, radians, sin
from pathlib import Path

import numpy as np
import ours
from label_studio_sdk.converter import Converter
from label_studio_sdk.converter.brush import mask2rle

OUT = Path(sys.argv[1])
SORTED = sorted(ours.CLASSES)
LABELS = ''.join(f'<Label value="{name}"/>' for name in ours.CLASSES)
POINTS = ''.join(f'<Label value="{name}" model_index="{i}"/>' for i, name in enumerate(ours.KEYPOINTS))
BOX = f'<RectangleLabels name="box" toName="image">{LABELS}</RectangleLabels>'
POLYGON = f'<PolygonLabels name="polygon" toName="image">{LABELS}</PolygonLabels>'
BRUSH = f'<BrushLabels name="brush" toName="image">{LABELS}</BrushLabels>'
KEYPOINT = f'<KeyPointLabels name="keypoint" toName="image">{POINTS}</KeyPointLabels>'
EMPTY = 'writes nothing for an image without objects'


def region(item, kind, value, label=None, **more):
    """A region of an annotation, as the window makes it; coordinates are in percent of the image."""
    width, height = ours.SIZES[item.image]
    entry = dict(value=value | {f'{kind}labels': [label or item.name]}, original_width=width, original_height=height)
    names = dict(rectangle='box')
    return entry | dict(from_name=names.get(kind, kind), to_name='image', type=f'{kind}labels', image_rotation=0) | more


def share(item, points):
    return [[100 * value / side for value, side in zip(point, ours.SIZES[item.image])] for point in points]


def rectangle(number, item):
    x, y, w, h = item.box
    turn = radians(item.degrees)
    start = x + w / 2 - w / 2 * cos(turn) + h / 2 * sin(turn), y + h / 2 - w / 2 * sin(turn) - h / 2 * cos(turn)
    ((left, top), (width, height)) = share(item, [start, (w, h)])
    value = dict(x=left, y=top, width=width, height=height, rotation=item.degrees % 360)
    return [region(item, 'rectangle', value, id=f'r{number}')]


def polygons(number, item):
    points = [share(item, zip(piece[::2], piece[1::2])) for piece in item.pieces]
    return [
        region(item, 'polygon', dict(points=polygon, closed=True), id=f'p{number}{i}')
        for i, polygon in enumerate(points)
    ]


def masked(number, item):
    if len(item.pieces) == 1 and not item.holes:
        return polygons(number, item)
    mask = np.array(ours.mask_of(item), np.uint8) * 255
    return [region(item, 'brush', dict(format='rle', rle=mask2rle(mask)), id=f'b{number}')]


def posed(number, item):
    triples = zip(*[iter(item.keypoints)] * 3)
    entry = rectangle(number, item)
    for name, (x, y, v) in zip(ours.KEYPOINTS, triples):
        if v:
            ((left, top),) = share(item, [(x, y)])
            value = dict(x=left, y=top, width=0.5)
            entry.append(region(item, 'keypoint', value, name, id=f'k{number}{name}', parentID=f'r{number}'))
    return entry


def visible(objects):
    """Label Studio knows no hidden keypoints: they are visible."""
    triples = [[(x, y, 2 * (v > 0)) for x, y, v in zip(*[iter(item.keypoints)] * 3)] for item in objects]
    flat = [tuple(value for triple in triple for value in triple) for triple in triples]
    return [replace(item, keypoints=points) for item, points in zip(objects, flat)]


def export(name, objects, regions_of, controls, kind, images=ours.SIZES, later=None):
    folder, work = OUT / name, Path('server')
    shutil.rmtree(work, ignore_errors=True)
    ours.draw(work / 'upload/1', images, objects)
    tasks = []
    for i, image in enumerate(images):
        exports = []
        for k, group in enumerate([objects] if later is None else [objects, later]):
            results = [one for n, item in enumerate(ours.objects_of(image, group)) for one in regions_of(n, item)]
            who, when = dict(id=k + 1, email=f'{k + 1}@example.com'), f'2026-01-0{k + 1}T00:00:00Z'
            annotation = dict(id=10 * i + k, result=results, completed_by=who, was_cancelled=False, ground_truth=False)
            exports.append(annotation | dict(created_at=when, updated_at=when, lead_time=1.0))
        tasks.append(dict(id=i + 1, data=dict(image=f'/data/upload/1/{image}'), annotations=exports))
    (work / 'tasks.json').write_text(json.dumps(tasks))
    config = f'<View><Image name="image" value="$image"/>{controls}</View>'
    converter = Converter(config, str(work), upload_dir=str(work / 'upload'))
    data = folder / 'data'
    more = dict(image_dir=str(data / 'images')) if kind != 'JSON' else {}
    converter.convert(str(work / 'tasks.json'), str(data), kind, is_dir=False, **more)
    if not (data / 'images').is_dir() or not list((data / 'images').iterdir()):
        ours.draw(data / 'images', images, objects)
    for path in data.glob('*.json'):  # the date of the export would change the files
        content = json.loads(path.read_text())
        if isinstance(content, dict) and 'info' in content:
            content['info'] |= dict(year=2026, date_created='')
            path.write_text(json.dumps(content, indent=1))
    return folder


plain = [replace(item, crowd=False) for item in ours.BOXES]
some = ['one.png', 'two.png']
folder = export('json_boxes', ours.BOXES, rectangle, BOX, 'JSON')
ours.write_truth(folder, plain, 'JSON of its own', classes=SORTED)

folder = export('json_masks', ours.MASKS, masked, POLYGON + BRUSH, 'JSON')
objects = [replace(item, crowd=False) for item in ours.MASKS]
ours.write_truth(folder, objects, 'JSON of its own', classes=SORTED, iou=0.9, changes=['has no crowds'])

folder = export('json_rotated', ours.ROTATED, rectangle, BOX, 'JSON')
ours.write_truth(folder, ours.polygons_of_rotated(), 'JSON of its own', classes=SORTED, iou=0.9, box=1.0)

folder = export('json_keypoints', ours.POSES, posed, BOX + KEYPOINT, 'JSON')
names = sorted(ours.KEYPOINTS)
order = [ours.KEYPOINTS.index(name) for name in names]
objects = [replace(item, keypoints=sum((item.keypoints[3 * i : 3 * i + 3] for i in order), ())) for item in ours.POSES]
hidden = 'has no hidden keypoints: they are visible'
more = dict(classes=['zebra'], keypoints=names, changes=[hidden])
ours.write_truth(folder, visible(objects), 'JSON of its own', **more)

folder = export(
    'json_two_people',
    ours.BOXES,
    rectangle,
    BOX,
    'JSON',
    later=[replace(item, box=(item.box[0], item.box[1] + 1, *item.box[2:])) for item in ours.BOXES],
)
moved = [replace(item, box=(item.box[0], item.box[1] + 1, *item.box[2:])) for item in plain]
ours.write_truth(folder, moved, 'JSON of its own', classes=SORTED, decided=['has 2 annotations: the latest is taken'])

folder = export('coco_boxes', ours.BOXES, rectangle, BOX, 'COCO_WITH_IMAGES')
ours.write_truth(folder, plain, 'COCO', classes=SORTED)

folder = export('coco_two_people', ours.BOXES, rectangle, BOX, 'COCO_WITH_IMAGES', images=some, later=moved)
decided = ['with the same objects: the first ones are taken']
first = 'an image is listed once for each person, the newest first'
ours.write_truth(folder, moved, 'COCO', images=some, classes=SORTED, decided=decided, changes=[first])

folder = export('coco_polygons', ours.MASKS, polygons, POLYGON, 'COCO_WITH_IMAGES')
pieces = [
    replace(item, pieces=(p,), holes=(), crowd=False, box=ours.around(p)) for item in ours.MASKS for p in item.pieces
]
apart = 'each piece is an object'
ours.write_truth(folder, pieces, 'COCO', classes=SORTED, iou=0.9, changes=[apart])

single = [ours.POSES[1], ours.POSES[2]]
folder = export('coco_keypoints', single, posed, BOX + KEYPOINT, 'COCO_WITH_IMAGES')
skeletons = []
for item in visible(single):
    seen = [(round(x), round(y)) for x, y, v in zip(*[iter(item.keypoints)] * 3) if v]
    around = ours.around(sum(seen, ()))
    skeletons.append(replace(item, name='default', box=around))
apart = "the keypoints of an image are one object of the class 'default', in whole pixels"
boxes = [replace(item, keypoints=()) for item in single]
more = dict(classes=[*SORTED, 'default'], keypoints=ours.KEYPOINTS, changes=[apart, hidden], point=0.5, box=0.5)
ours.write_truth(folder, skeletons + boxes, 'COCO', **more)

folder = export('coco_brushes', ours.MASKS, masked, POLYGON + BRUSH, 'BRUSH_TO_COCO', images=some)
apart = 'polygons of brushes go through the middle of their edge pixels, without holes'
filled = sorted(pieces, key=lambda item: item.image)
more = dict(images=some, iou=0.75, box=1.0, changes=['each piece is an object', apart, EMPTY])
ours.write_truth(folder, filled, 'COCO of brushes', **more)

folder = export('yolo', ours.BOXES, rectangle, BOX, 'YOLO_WITH_IMAGES')
ours.write_truth(folder, plain, 'YOLO with classes.txt', classes=SORTED)

folder = export('yolo_polygons', ours.MASKS, polygons, POLYGON, 'YOLO_WITH_IMAGES')
ours.write_truth(folder, pieces, 'YOLO with classes.txt', classes=SORTED, iou=0.9, changes=['each piece is an object'])

folder = export('yolo_rotated', ours.ROTATED, rectangle, BOX, 'YOLO_OBB_WITH_IMAGES')
more = dict(classes=SORTED, iou=0.9, box=1.0)
ours.write_truth(folder, ours.polygons_of_rotated(), 'YOLO with rotated boxes', **more)

folder = export('yolo_keypoints', ours.POSES, posed, BOX + KEYPOINT, 'YOLO_WITH_IMAGES')
more = dict(keypoints=ours.KEYPOINTS, changes=[hidden])
ours.write_truth(folder, visible(ours.POSES), 'YOLO with keypoints', **more)

folder = export('voc', ours.BOXES, rectangle, BOX, 'VOC')
cut = 'boxes are cut to whole pixels'
decided = ['boxes count pixels from 0', 'has no XML file: not read']
ours.write_truth(
    folder, plain, 'Pascal VOC', images=some, classes=SORTED, box=1.0, changes=[cut, EMPTY], decided=decided
)
shutil.rmtree('server')
