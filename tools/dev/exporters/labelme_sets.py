"""labelme: the JSON files that its window saves, by the same functions."""

import sys
from dataclasses import replace
from pathlib import Path

import labelme._label_file as label_file
import numpy as np
import ours

VERSION = int(label_file.__version__.split('.')[0])
NO_ORDER = sorted(ours.CLASSES)
SORTED_POINTS = [ours.KEYPOINTS.index(name) for name in sorted(ours.KEYPOINTS)]


def shape(label, kind, points, group=None, mask=None):
    points = [[float(value) for value in point] for point in points]
    entry = dict(label=label, points=points, group_id=group, description='', shape_type=kind, flags={}, mask=mask)
    if VERSION >= 7:
        return {**entry, 'locked': False, 'other_data': {}}
    from labelme import utils  # as app._shape_to_dict does

    return {**entry, 'mask': None if mask is None else utils.img_arr_to_b64(mask.astype(np.uint8))}


def save(folder, name, shapes, embedded):
    width, height = ours.SIZES[name]
    pixels = (folder / name).read_bytes()
    file = str((folder / name).with_suffix('.json'))
    if VERSION >= 7:
        annotation = label_file.Annotation(name, pixels, shapes, {}, {})
        more = dict(image_height=height, image_width=width, save_image_data=embedded)
        label_file.write_label_file(filename=file, annotation=annotation, **more)
    else:
        more = dict(image_height=height, image_width=width, image_data=pixels if embedded else None)
        label_file.write_label_file(file, shapes=shapes, image_path=name, **more)


def points_of(polygon):
    return list(zip(polygon[::2], polygon[1::2]))


def rectangle(item, group=None):
    x, y, w, h = item.box
    return shape(item.name, 'rectangle', [(x, y), (x + w, y + h)], group)


def masked(item):
    if item.holes:  # a brush's mask: the part between two corners that both belong to it
        x, y, w, h = map(int, item.box)
        part = np.array(ours.mask_of(item), bool)[y : y + h, x : x + w]
        return [shape(item.name, 'mask', [(x, y), (x + w - 1, y + h - 1)], item.group, part)]
    return [shape(item.name, 'polygon', points_of(piece), item.group) for piece in item.pieces]


def posed(number, item):
    triples = zip(*[iter(item.keypoints)] * 3)
    points = [(name, x, y) for name, (x, y, v) in zip(ours.KEYPOINTS, triples) if v]
    return [rectangle(item, number), *(shape(name, 'point', [(x, y)], number) for name, x, y in points)]


def resorted(item):
    """Keypoints in the order of the alphabet, all of them visible: labelme knows neither order nor visibility."""
    triples = list(zip(*[iter(item.keypoints)] * 3))
    triples = [(x, y, 2 * (v > 0)) for x, y, v in (triples[i] for i in SORTED_POINTS)]
    return replace(item, keypoints=tuple(value for triple in triples for value in triple))


def write(out, objects, shapes_of, embedded=True, **truth):
    ours.draw(out / 'data', objects=objects)
    for name in ours.SIZES:
        items = ours.objects_of(name, objects)
        save(out / 'data', name, [entry for i, item in enumerate(items) for entry in shapes_of(i, item)], embedded)
    ours.write_truth(
        out, truth.pop('means', objects), 'JSON of its own', classes=truth.pop('classes', NO_ORDER), **truth
    )


out = Path(sys.argv[1])
write(out / 'boxes', ours.BOXES, lambda i, item: [rectangle(item)])
write(
    out / 'masks',
    ours.MASKS,
    lambda i, item: masked(item),
    embedded=False,
    means=[replace(item, crowd=False) for item in ours.MASKS],
    changes=['has no crowds, no difficult objects and no order of classes'],
    iou=0.9,  # of the triangle, whose edge runs through pixels
)
write(
    out / 'rotated',
    ours.ROTATED,
    lambda i, item: [shape(item.name, 'oriented_rectangle', points_of(ours.corners(item.box, item.degrees)))],
    means=ours.polygons_of_rotated(),
    iou=0.9,
    box=1.0,
)
write(
    out / 'keypoints',
    ours.POSES,
    posed,
    means=[resorted(item) for item in ours.POSES],
    classes=['zebra'],
    keypoints=sorted(ours.KEYPOINTS),
    changes=['has no hidden keypoints: they are visible'],
)
