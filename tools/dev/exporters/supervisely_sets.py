"""supervisely: ``supervisely.convert`` of a project."""

import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import ours
import supervisely as sly

OUT = Path(sys.argv[1])
SHORT = 'boxes are a pixel shorter: their width is the difference of the first and the last pixel'
COLORS = [[250, 120, 10], [10, 20, 200]]
BOX, POLYGON, MASK = (
    [sly.ObjClass(name, kind, color) for name, color in zip(ours.CLASSES, COLORS)]
    for kind in (sly.Rectangle, sly.Polygon, sly.Bitmap)
)
VAL = sly.TagMeta('val', sly.TagValueType.NONE)
GRAPH = sly.geometry.graph.KeypointsTemplate()
for number, name in enumerate(ours.KEYPOINTS):
    GRAPH.add_point(label=name, row=number, col=number)
for start, end in ours.SKELETON:
    GRAPH.add_edge(src=ours.KEYPOINTS[start], dst=ours.KEYPOINTS[end])
SKELETON = [sly.ObjClass('zebra', sly.GraphNodes, geometry_config=GRAPH)]


def box(item, classes):
    x, y, w, h = item.box
    return [sly.Label(sly.Rectangle(y, x, y + h - 1, x + w - 1), classes[ours.CLASSES.index(item.name)])]


def polygon(item, classes):
    figures = []
    for piece in item.pieces:
        outer = [(y, x) for x, y in zip(piece[::2], piece[1::2])]
        holes = [[(y, x) for x, y in zip(hole[::2], hole[1::2])] for hole in item.holes]
        key = None if item.group is None else str(item.group)
        figures.append(sly.Label(sly.Polygon(outer, holes), classes[ours.CLASSES.index(item.name)], binding_key=key))
    return figures


def mask(item, classes):
    return [sly.Label(sly.Bitmap(np.array(ours.mask_of(item), bool)), classes[ours.CLASSES.index(item.name)])]


def pose(item, classes):
    triples = zip(ours.KEYPOINTS, zip(*[iter(item.keypoints)] * 3))
    nodes = [sly.Node(label=name, row=round(y), col=round(x), disabled=v == 1) for name, (x, y, v) in triples if v]
    return [sly.Label(sly.GraphNodes(nodes), classes[0])]


def project(name, objects, labels_of, classes):
    shutil.rmtree('project', ignore_errors=True)
    files = sly.Project('project', sly.OpenMode.CREATE)
    files.set_meta(sly.ProjectMeta(sly.ObjClassCollection(classes), sly.TagMetaCollection([VAL])))
    dataset = files.create_dataset('set')
    for path in ours.draw(Path('images'), objects=objects):
        width, height = ours.SIZES[path.name]
        labels = [label for item in ours.objects_of(path.name, objects) for label in labels_of(item, classes)]
        tags = [sly.Tag(VAL)] if ours.SPLITS[path.name] == 'val' else []
        dataset.add_item_file(path.name, str(path), ann=sly.Annotation((height, width), labels, tags))
    return files, OUT / name


def shorter(item):
    x, y, w, h = item.box
    return replace(item, box=(x, y, w - 1, h - 1), crowd=False)


plain = [shorter(item) for item in ours.BOXES]
files, folder = project('coco_boxes', ours.BOXES, box, BOX)
sly.convert.to_coco(files, dest_dir=str(folder / 'data'), copy_images=True)
ours.write_truth(folder, plain, 'COCO', changes=[SHORT])

filled = [replace(item, holes=(), crowd=False) for item in ours.MASKS]
files, folder = project('coco_polygons', ours.MASKS, polygon, POLYGON)
sly.convert.to_coco(files, dest_dir=str(folder / 'data'), copy_images=True)
ours.write_truth(folder, filled, 'COCO', iou=0.9, box=1.0, changes=['holes of polygons are filled', SHORT])

objects = [replace(item, crowd=False) for item in ours.MASKS]
files, folder = project('coco_masks', ours.MASKS, mask, MASK)
sly.convert.to_coco(files, dest_dir=str(folder / 'data'), copy_images=True)
ours.write_truth(folder, objects, 'COCO', iou=1.0, box=1.0, changes=[SHORT])

files, folder = project('coco_keypoints', ours.POSES, pose, SKELETON)
sly.convert.to_coco(files, dest_dir=str(folder / 'data'), copy_images=True)
visible = []
for item in ours.POSES:
    triples = [(round(x), round(y), 2 * (v > 0)) for x, y, v in zip(*[iter(item.keypoints)] * 3)]
    visible.append(replace(item, box=(), keypoints=sum(triples, ())))
pixels = 'keypoints are whole pixels, disabled ones are visible'
more = dict(keypoints=ours.KEYPOINTS, classes=['zebra'], point=0.5)
ours.write_truth(folder, visible, 'COCO', changes=[pixels, 'boxes start at 0 if a keypoint is absent'], **more)


def renamed(name):
    return f'set_{Path(name).stem}.{ending}'


def truth(folder, writes, objects, splits, **more):
    objects = [replace(item, image=renamed(item.image)) for item in objects]
    sizes = {renamed(name): size for name, size in ours.SIZES.items()}
    splits = {renamed(name): split for name, split in splits.items()}
    before, ours.SIZES = ours.SIZES, sizes
    ours.write_truth(folder, objects, writes, images=list(sizes), splits=splits, **more)
    ours.SIZES = before


files, folder = project('yolo', ours.BOXES, box, BOX)
sly.convert.to_yolo(files, dest_dir=str(folder / 'data'))
ending, half = 'png', 'boxes lie up to a pixel too far left and up: their middle is rounded down'
plain = [replace(item, crowd=False) for item in ours.BOXES]
truth(folder, 'YOLO', plain, ours.SPLITS, box=1.0, changes=[half])

files, folder = project('voc', ours.BOXES, box, BOX)
sly.convert.to_pascal_voc(files, dest_dir=str(folder / 'data'), train_val_split_coef=0.5)
ending, plain = 'jpg', [shorter(item) for item in ours.BOXES]
shutil.copytree('project', OUT / 'project/data')
ours.write_truth(OUT / 'project', [], 'a project', refused='is of Supervisely, which is not read')
more = dict(classes=sorted(ours.CLASSES), decided=['boxes count pixels from 0'], changes=[SHORT, 'images become JPEG'])
truth(folder, 'Pascal VOC', plain, {'one.png': 'train', 'two.png': 'val', 'none.png': 'val'}, **more)
shutil.rmtree('project')
shutil.rmtree('images')
