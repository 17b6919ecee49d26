"""datumaro: one set for each of its exporters whose format is read."""

import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import ours
from datumaro.components.annotation import (
    AnnotationType,
    Bbox,
    LabelCategories,
    Mask,
    MaskCategories,
    Points,
    PointsCategories,
    Polygon,
    RotatedBbox,
)
from datumaro.components.dataset import Dataset
from datumaro.components.dataset_base import DatasetItem
from datumaro.components.media import Image

OUT = Path(sys.argv[1])


def export(
    name, objects, annotations_of, to, splits=ours.SPLITS, classes=ours.CLASSES, images=ours.SIZES, colors=(), **options
):
    folder = OUT / name
    sources = {path.name: path for path in ours.draw(Path('images'), objects=objects)}
    items = []
    for image in images:
        annotations = [
            one for i, item in enumerate(ours.objects_of(image, objects)) for one in annotations_of(i + 1, item)
        ]
        media = Image.from_file(path=str(sources[image]))
        items.append(DatasetItem(Path(image).stem, subset=splits[image], media=media, annotations=annotations))
    categories = {AnnotationType.label: LabelCategories.from_iterable(classes)}
    if colors:
        categories[AnnotationType.mask] = MaskCategories(dict(enumerate(colors)))
    points = [(i, ours.KEYPOINTS, {(a + 1, b + 1) for a, b in ours.SKELETON}) for i in range(len(classes))]
    if any(item.keypoints for item in objects):
        categories[AnnotationType.points] = PointsCategories.from_iterable(points)
    dataset = Dataset.from_iterable(items, categories=categories, media_type=Image)
    dataset.export(str(folder / 'data'), to, save_media=True, **options)
    return folder


def label(item, names=ours.CLASSES):
    return names.index(item.name)


def box(number, item):
    attributes = dict(difficult=item.difficult, occluded=item.occluded)
    return [Bbox(*item.box, label=label(item), attributes=attributes)]


def masks(number, item, **attributes):
    if item.holes or item.crowd:
        attributes |= dict(is_crowd=True) if item.crowd else {}
        return [Mask(np.array(ours.mask_of(item), bool), label=label(item), group=number, attributes=attributes)]
    return [Polygon(list(piece), label=label(item), group=number, attributes=attributes) for piece in item.pieces]


def pixels(number, item):
    return [Mask(np.array(ours.mask_of(item), bool), label=label(item), id=number, group=number)]


def pixels_beside_background(number, item):
    return [Mask(np.array(ours.mask_of(item), bool), label=label(item) + 1, id=number, group=number)]


def pose(number, item):
    triples = list(zip(*[iter(item.keypoints)] * 3))
    points = [value for x, y, _ in triples for value in (x, y)]
    seen = [v for *_, v in triples]
    return [Bbox(*item.box, label=label(item), group=number), Points(points, seen, label=label(item), group=number)]


def rotated(number, item):
    x, y, w, h = item.box
    return [RotatedBbox(x + w / 2, y + h / 2, w, h, item.degrees, label=label(item))]


def with_holes_filled(objects):
    return [replace(item, holes=()) for item in objects]


plain = [replace(item, crowd=False, difficult=False) for item in ours.BOXES]
split = dict(splits=ours.SPLITS)
ignored = [replace(item, crowd=item.difficult) for item in ours.BOXES]

folder = export('coco_boxes', ours.BOXES, box, 'coco_instances')
ours.write_truth(folder, plain, 'COCO', changes=['has no difficult objects'], **split)

folder = export('coco_masks', ours.MASKS, lambda n, item: masks(n, item, is_crowd=item.crowd), 'coco_instances')
half = 'polygons of masks go through the middle of their edge pixels'
holes = 'holes of masks that are no crowds are filled'
ours.write_truth(folder, with_holes_filled(ours.MASKS), 'COCO', changes=[holes, half], iou=0.89, **split)

folder = export('coco_masks_without_attribute', ours.MASKS, masks, 'coco_instances')
crowds = 'iscrowd is 1 for every mask without the attribute is_crowd'
objects = [replace(item, crowd=bool(item.holes) or item.crowd) for item in ours.MASKS]
ours.write_truth(folder, objects, 'COCO', changes=[crowds], iou=0.9, **split)

folder = export('coco_keypoints', ours.POSES, pose, 'coco_person_keypoints')
ours.write_truth(folder, ours.POSES, 'COCO', keypoints=ours.KEYPOINTS, **split)

folder = export('datumaro', ours.BOXES, box, 'datumaro')
ours.write_truth(folder, [], 'JSON of its own', refused='is of Datumaro, which is not read')

folder = export('voc', ours.BOXES, box, 'voc_detection')
zero = 'boxes count pixels from 0'
unlisted = 'images without objects get no XML'
seen = ['one.png', 'two.png']
more = dict(images=seen, **split)
left = 'has no XML file: left out'
more |= dict(changes=[unlisted], decided=[zero, left])
ours.write_truth(folder, ignored, 'Pascal VOC', classes=sorted(ours.CLASSES), **more)

folder = export('voc_from_one', ours.BOXES, box, 'voc_detection', coordinate_mode='voc-one-based')
more |= dict(changes=[unlisted], decided=['boxes count pixels from 1', left])
ours.write_truth(folder, ignored, 'Pascal VOC', classes=sorted(ours.CLASSES), **more)

folder = export('yolo', ours.BOXES, box, 'yolo')
ours.write_truth(folder, plain, 'YOLO (darknet)', changes=['rounds to 6 digits'], **split)

folder = export('yolo_ultralytics', ours.BOXES, box, 'yolo_ultralytics')
ours.write_truth(folder, plain, 'YOLO', changes=['rounds to 6 digits'], **split)

folder = export('cvat_boxes', ours.BOXES, box, 'cvat')
ours.write_truth(folder, plain, 'CVAT', **split)

folder = export('cvat_masks', ours.MASKS, masks, 'cvat')
objects = [replace(item, crowd=False) for item in ours.MASKS]
ours.write_truth(folder, objects, 'CVAT', iou=0.9, changes=['has no crowds'], **split)

folder = export('cvat_rotated', ours.ROTATED, rotated, 'cvat')
decided = ['rotated, are polygons for masks, and the boxes around these for detection']
ours.write_truth(folder, ours.polygons_of_rotated(), 'CVAT', decided=decided, iou=0.9, **split)

folder = export('labelme_of_mit', ours.BOXES, box, 'label_me')
objects = [replace(item, pieces=(ours.corners(item.box),)) for item in plain]
more = dict(changes=['boxes are polygons of four corners'], classes=sorted(ours.CLASSES))
ours.write_truth(folder, objects, 'LabelMe of MIT', **more, **split)


both = ['one.png', 'two.png']
folder = export('panoptic', ours.MASKS, pixels, 'coco_panoptic', images=both)
names = ['background', *ours.CLASSES]
maps = {image: ours.seg_map(ours.CLASSES, image) for image in both}
change = 'isthing is 0 for all classes: no objects'
more = dict(images=both, seg_maps=maps, changes=[change], **split)
ours.write_truth(folder, [], 'COCO panoptic', **more)

named = dict(images=both, classes=names)
maps = {image: ours.seg_map(names, image) for image in both}
unnamed = 'names without colours: those of Pascal VOC are taken'
none = 'the table of labels has no colours if the source has none'
for name, to, kind in (('voc_maps', 'voc_segmentation', 'maps of Pascal VOC'), ('camvid', 'camvid', 'maps of CamVid')):
    for end, colors in (('', [(0, 0, 0), (250, 120, 10), (10, 20, 200)]), ('_without_colors', ())):
        folder = export(name + end, ours.MASKS, pixels_beside_background, to, colors=colors, **named)
        more = dict(seg_maps=maps, decided=[] if colors else [unnamed], changes=[] if colors else [none], **named)
        ours.write_truth(folder, [], kind, **more, **split)
shutil.rmtree('images')
