"""ISAT: its annotations, converted by the classes behind its menu 'Tools'."""

import shutil
import sys
from dataclasses import replace
from pathlib import Path

import ours
from ISAT.annotation import Annotation, Object
from ISAT.formats.coco import COCO
from ISAT.formats.labelme import LABELME
from ISAT.formats.voc import VOC
from ISAT.formats.voc_detection import VOCDetect
from ISAT.formats.yolo import YOLO

OUT = Path(sys.argv[1])
BACKGROUND = '__background__'  # of ISAT: pixels of no object, also in holes
NO_CLASS = "1 objects of '__background__', which is no class: not learned"
NAMES = [BACKGROUND, *ours.CLASSES]


def converter(kind):
    """Returns a converter that has read our annotations, each of one group, a hole as background above it."""
    folder = Path('isat')
    shutil.rmtree(folder, ignore_errors=True)
    for path in ours.draw(folder / 'images', objects=ours.MASKS):
        annotation = Annotation(str(path), str(folder / path.with_suffix('.json').name))
        for number, item in enumerate(ours.objects_of(path.name, ours.MASKS)):
            parts = [(item.name, piece, item.crowd) for piece in item.pieces]
            parts += [(BACKGROUND, hole, False) for hole in item.holes]
            for layer, (name, polygon, crowd) in enumerate(parts, 1):
                x, y, w, h = ours.around(polygon)
                points = [list(map(float, point)) for point in zip(polygon[::2], polygon[1::2])]
                entry = Object(name, number + 1, points, w * h, 10 * number + layer, [x, y, x + w, y + h], crowd)
                annotation.objects.append(entry)
        annotation.save_annotation()
    entry = kind()
    entry.read_from_ISAT(str(folder))
    entry.cates = NAMES
    return entry


filled = [replace(item, holes=()) for item in ours.MASKS]
no_crowds = [replace(item, crowd=False) for item in filled]
hole = 'a hole is an object of the class __background__'

data = OUT / 'coco/data'
ours.draw(data, objects=ours.MASKS)
converter(COCO).save_to_coco(str(data / 'annotations.json'), NAMES)
ours.write_truth(data.parent, filled, 'COCO', iou=0.9, changes=[hole], decided=[NO_CLASS])

data = OUT / 'yolo/data'
ours.draw(data / 'images', objects=ours.MASKS)
converter(YOLO).save_to_YOLO(str(data / 'labels'))
line = 'two pieces are joined by a line'
more = dict(iou=0.9, changes=[hole, line], decided=[NO_CLASS])
ours.write_truth(data.parent, no_crowds, 'YOLO with classification.txt', **more)

data = OUT / 'voc/data'
ours.draw(data, objects=ours.MASKS)
converter(VOCDetect).save_to_XML(str(data))
boxes = ours.whole_boxes(no_crowds)
more = dict(classes=sorted(ours.CLASSES), changes=[hole], decided=[NO_CLASS, 'boxes count pixels from 0'])
ours.write_truth(data.parent, boxes, 'Pascal VOC', **more)

data = OUT / 'labelme/data'
ours.draw(data, objects=ours.MASKS)
converter(LABELME).save_to_LABELME(str(data))
more = dict(classes=sorted(ours.CLASSES), iou=0.9, changes=[hole], decided=[NO_CLASS])
ours.write_truth(data.parent, no_crowds, "labelme's JSON", **more)

data = OUT / 'maps/data'
ours.draw(data / 'images', objects=ours.MASKS)
voc = converter(VOC)
voc.is_instance, voc.keep_crowd = False, True
voc.save_to_voc(str(data / 'masks'))
shutil.copytree('isat', OUT / 'json/data')
shutil.rmtree('isat')
ours.write_truth(OUT / 'json', [], 'JSON of its own', refused='is of ISAT, which is not read')
maps = {image: ours.seg_map(NAMES, image) for image in ours.SIZES}
edges = 'polygons include the pixels of their last row and column'
ours.write_truth(
    data.parent, [], 'maps with classification.txt', classes=NAMES, seg_maps=maps, iou=0.7, changes=[edges]
)
