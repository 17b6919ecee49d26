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


def box(each, classes):
    x, y, w, h = each.box
    return [sly.Label(sly.Rectangle(y, x, y + h - 1, x + w - 1), classes[ours.CLASSES.index(each.name)])]


def polygon(each, classes):
    made = []
    for piece in each.pieces:
        outer = [(y, x) for x, y in zip(piece[::2], piece[1::2])]
        holes = [[(y, x) for x, y in zip(hole[::2], hole[1::2])] for hole in each.holes]
        key = None if each.group is None else str(each.group)
        made.append(sly.Label(sly.Polygon(outer, holes), classes[ours.CLASSES.index(each.name)], binding_key=key))
    return made


def mask(each, classes):
    return [sly.Label(sly.Bitmap(np.array(ours.mask_of(each), bool)), classes[ours.CLASSES.index(each.name)])]


def pose(each, classes):
    triples = zip(ours.KEYPOINTS, zip(*[iter(each.keypoints)] * 3))
    nodes = [sly.Node(label=name, row=round(y), col=round(x), disabled=v == 1) for name, (x, y, v) in triples if v]
    return [sly.Label(sly.GraphNodes(nodes), classes[0])]


def project(name, objects, labels_of, classes):
    shutil.rmtree('project', ignore_errors=True)
    made = sly.Project('project', sly.OpenMode.CREATE)
    made.set_meta(sly.ProjectMeta(sly.ObjClassCollection(classes), sly.TagMetaCollection([VAL])))
    dataset = made.create_dataset('set')
    for path in ours.draw(Path('images'), objects=objects):
        width, height = ours.SIZES[path.name]
        labels = [label for each in ours.objects_of(path.name, objects) for label in labels_of(each, classes)]
        tags = [sly.Tag(VAL)] if ours.SPLITS[path.name] == 'val' else []
        dataset.add_item_file(path.name, str(path), ann=sly.Annotation((height, width), labels, tags))
    return made, OUT / name


def shorter(each):
    x, y, w, h = each.box
    return replace(each, box=(x, y, w - 1, h - 1), crowd=False)


plain = [shorter(each) for each in ours.BOXES]
made, folder = project('coco_boxes', ours.BOXES, box, BOX)
sly.convert.to_coco(made, dest_dir=str(folder / 'data'), copy_images=True)
ours.write_truth(folder, plain, 'COCO', changes=[SHORT])

filled = [replace(each, holes=(), crowd=False) for each in ours.MASKS]
made, folder = project('coco_polygons', ours.MASKS, polygon, POLYGON)
sly.convert.to_coco(made, dest_dir=str(folder / 'data'), copy_images=True)
ours.write_truth(folder, filled, 'COCO', iou=0.9, box=1.0, changes=['holes of polygons are filled', SHORT])

objects = [replace(each, crowd=False) for each in ours.MASKS]
made, folder = project('coco_masks', ours.MASKS, mask, MASK)
sly.convert.to_coco(made, dest_dir=str(folder / 'data'), copy_images=True)
ours.write_truth(folder, objects, 'COCO', iou=1.0, box=1.0, changes=[SHORT])

made, folder = project('coco_keypoints', ours.POSES, pose, SKELETON)
sly.convert.to_coco(made, dest_dir=str(folder / 'data'), copy_images=True)
visible = []
for each in ours.POSES:
    triples = [(round(x), round(y), 2 * (v > 0)) for x, y, v in zip(*[iter(each.keypoints)] * 3)]
    visible.append(replace(each, box=(), keypoints=sum(triples, ())))
pixels = 'keypoints are whole pixels, disabled ones are visible'
more = dict(keypoints=ours.KEYPOINTS, classes=['zebra'], point=0.5)
ours.write_truth(folder, visible, 'COCO', changes=[pixels, 'boxes start at 0 if a keypoint is absent'], **more)


def renamed(name):
    return f'set_{Path(name).stem}.{ending}'


def truth(folder, writes, objects, splits, **more):
    objects = [replace(each, image=renamed(each.image)) for each in objects]
    sizes = {renamed(name): size for name, size in ours.SIZES.items()}
    splits = {renamed(name): split for name, split in splits.items()}
    before, ours.SIZES = ours.SIZES, sizes
    ours.write_truth(folder, objects, writes, images=list(sizes), splits=splits, **more)
    ours.SIZES = before


made, folder = project('yolo', ours.BOXES, box, BOX)
sly.convert.to_yolo(made, dest_dir=str(folder / 'data'))
ending, half = 'png', 'boxes lie up to a pixel too far left and up: their middle is rounded down'
plain = [replace(each, crowd=False) for each in ours.BOXES]
truth(folder, 'YOLO', plain, ours.SPLITS, box=1.0, changes=[half])

made, folder = project('voc', ours.BOXES, box, BOX)
sly.convert.to_pascal_voc(made, dest_dir=str(folder / 'data'), train_val_split_coef=0.5)
ending, plain = 'jpg', [shorter(each) for each in ours.BOXES]
shutil.copytree('project', OUT / 'project/data')
ours.write_truth(OUT / 'project', [], 'a project', refused='is of Supervisely, which is not read')
more = dict(classes=sorted(ours.CLASSES), decided=['boxes count pixels from 0'], changes=[SHORT, 'images become JPEG'])
truth(folder, 'Pascal VOC', plain, {'one.png': 'train', 'two.png': 'val', 'none.png': 'val'}, **more)
shutil.rmtree('project')
shutil.rmtree('images')
