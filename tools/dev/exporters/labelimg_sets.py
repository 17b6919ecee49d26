"""labelImg: the files that its window saves, by the class that it uses."""

import sys
from dataclasses import replace
from pathlib import Path

import ours
from libs.labelFile import LabelFile
from libs.pascal_voc_io import PascalVocWriter
from libs.yolo_io import YOLOWriter

OUT = Path(sys.argv[1])


def write(folder, form):
    """As ``LabelFile.save_pascal_voc_format`` and ``save_yolo_format`` do, without Qt's image."""
    for path in ours.draw(folder, objects=ours.BOXES):
        width, height = ours.SIZES[path.name]
        writer = form(folder.name, path.name, (height, width, 3), local_img_path=f'images/{path.name}')
        for item in ours.objects_of(path.name, ours.BOXES):
            polygon = ours.corners(item.box)
            box = LabelFile.convert_points_to_bnd_box(list(zip(polygon[::2], polygon[1::2])))
            writer.add_bnd_box(*box, item.name, item.difficult)
        if form is PascalVocWriter:
            writer.save(target_file=str(path.with_suffix('.xml')))
        else:
            writer.save(class_list=CLASSES, target_file=str(path.with_suffix('.txt')))


def from_one(item):
    """Returns an object whose box starts at 1 where it started at 0."""
    x, y, w, h = item.box
    return replace(item, box=(max(x, 1), max(y, 1), x + w - max(x, 1), y + h - max(y, 1)))


CLASSES = list(ours.CLASSES)
boxes = [from_one(replace(item, crowd=item.difficult)) for item in ours.BOXES]
clamped = '0 becomes 1'
write(OUT / 'voc/data', PascalVocWriter)
more = dict(classes=sorted(ours.CLASSES), options=dict(voc_from=0))
zero = 'boxes count pixels from 0: needs --voc-from 0'
ours.write_truth(OUT / 'voc', boxes, 'Pascal VOC', changes=[clamped, zero], **more)

write(OUT / 'yolo/data', YOLOWriter)
boxes = [replace(box, crowd=False) for box in boxes]
ours.write_truth(OUT / 'yolo', boxes, 'YOLO with classes.txt', changes=[clamped])
