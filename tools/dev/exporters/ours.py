"""The annotations that every tool is given, the images, and ``truth.json``: what a right reader gives. Plain Python.

Boxes are x, y, width and height in pixels, polygons have their corners on the edges of pixels.
"""

import json
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import cos, radians, sin
from pathlib import Path

CLASSES = ['zebra', 'ant']  # not in the order of the alphabet
KEYPOINTS = ['nose', 'left_ear', 'right_ear']
SKELETON = [(0, 1), (0, 2)]
SIZES = {'one.png': (60, 40), 'two.png': (40, 30), 'none.png': (24, 16)}  # none.png has no object
SPLITS = {'one.png': 'train', 'none.png': 'train', 'two.png': 'val'}


@dataclass
class Object:
    """An annotated object: ``pieces`` and ``holes`` are polygons, ``keypoints`` x, y and visibility as in COCO."""

    image: str
    name: str
    box: tuple[float, ...]
    pieces: tuple[tuple[float, ...], ...] = ()
    holes: tuple[tuple[float, ...], ...] = ()
    keypoints: tuple[float, ...] = ()
    crowd: bool = False
    difficult: bool = False
    occluded: bool = False
    degrees: float = 0  # clockwise, about the middle of the box
    group: int | None = None


def corners(box: Sequence[float], degrees: float = 0) -> tuple[float, ...]:
    """Returns the polygon of a box that is rotated about its middle, clockwise."""
    x, y, w, h = box
    points: tuple[float, ...] = ()
    for dx, dy in ((-w / 2, -h / 2), (w / 2, -h / 2), (w / 2, h / 2), (-w / 2, h / 2)):
        c, s = cos(radians(degrees)), sin(radians(degrees))
        points += (x + w / 2 + dx * c - dy * s, y + h / 2 + dx * s + dy * c)
    return tuple(round(value, 4) for value in points) if degrees else points


def around(*polygons: Sequence[float]) -> tuple[float, ...]:
    """Returns the box around polygons."""
    xs, ys = (sorted(value for polygon in polygons for value in polygon[start::2]) for start in (0, 1))
    return xs[0], ys[0], xs[-1] - xs[0], ys[-1] - ys[0]


def _masked(image: str, name: str, *pieces: Sequence[float], **more: object) -> Object:
    return Object(image, name, around(*pieces), tuple(map(tuple, pieces)), **more)


BOXES = [
    Object('one.png', 'zebra', (6, 4, 20, 12)),
    Object('one.png', 'ant', (34, 6, 26, 18), occluded=True),  # to the right edge
    Object('two.png', 'ant', (0, 5, 10, 20)),  # from the left edge
    Object('two.png', 'zebra', (20, 8, 15, 9), difficult=True, occluded=True),
]
_L = (4, 4, 24, 4, 24, 10, 12, 10, 12, 16, 4, 16)
MASKS = [
    _masked('one.png', 'zebra', _L),
    _masked('one.png', 'ant', corners((34, 6, 20, 18)), holes=(corners((40, 12, 6, 6)),)),
    _masked('one.png', 'zebra', corners((4, 24, 10, 8)), corners((20, 26, 12, 10)), group=1),
    _masked('two.png', 'ant', (2, 28, 20, 28, 20, 6, 12, 6)),
    _masked('two.png', 'zebra', corners((22, 4, 14, 20)), crowd=True),
]
POSES = [
    Object('one.png', 'zebra', (4, 4, 20, 14), keypoints=(8, 6, 2, 12, 10, 1, 0, 0, 0)),
    Object('one.png', 'zebra', (30, 8, 24, 20), keypoints=(34, 12, 2, 40.5, 20, 2, 50, 24.25, 2)),
    Object('two.png', 'zebra', (10, 6, 16, 12), keypoints=(0, 0, 0, 12, 9, 2, 22, 15, 2)),
]
_ROTATED = [('one.png', 'zebra', (14, 14, 24, 10), 30), ('two.png', 'ant', (12, 8, 16, 8), -45)]
ROTATED = [Object(image, name, box, degrees=turn) for image, name, box, turn in _ROTATED]


def polygons_of_rotated(objects: Sequence[Object] = tuple(ROTATED)) -> list[Object]:
    """Returns rotated boxes as polygons, with the boxes around these."""
    return [_masked(item.image, item.name, corners(item.box, item.degrees)) for item in objects]


def whole_boxes(objects: Sequence[Object]) -> list[Object]:
    """Returns objects with masks as boxes."""
    return [replace(item, pieces=(), holes=()) for item in objects]


def objects_of(image: str, objects: Sequence[Object]) -> list[Object]:
    """Returns the objects of an image."""
    return [item for item in objects if item.image == image]


def mask_of(item: Object) -> list[list[int]]:
    """Returns the mask [H][W] of an object: the pixels whose middle is in a piece and in no hole."""
    width, height = SIZES[item.image]
    rows = [[0] * width for _ in range(height)]
    for polygons, value in ((item.pieces, 1), (item.holes, 0)):
        for polygon in polygons:
            for y in range(height):
                for x in range(width):
                    if _is_inside(polygon, x + 0.5, y + 0.5):
                        rows[y][x] = value
    return rows


def _is_inside(polygon: Sequence[float], x: float, y: float) -> bool:
    points = list(zip(polygon[::2], polygon[1::2]))
    crossed = 0
    for (x1, y1), (x2, y2) in zip(points, points[1:] + points[:1]):
        crossed += (y1 > y) != (y2 > y) and x < x1 + (y - y1) / (y2 - y1) * (x2 - x1)
    return crossed % 2 == 1


def encode_rle(rows: Sequence[Sequence[int]]) -> list[int]:
    """Returns the RLE of a mask [H][W] by columns, from a run of zeros on: COCO's ``counts``."""
    counts, last = [0], 0
    for value in (row[x] for x in range(len(rows[0])) for row in rows):
        if value != last:
            counts.append(0)
        counts[-1], last = counts[-1] + 1, value
    return counts


def seg_map(names: Sequence[str], image: str) -> dict[str, list[int]]:
    """Returns the RLE of each class of an image; pixels without an object have the name that is no class."""
    width, height = SIZES[image]
    of_pixels = [[next(iter(set(names) - set(CLASSES)), '')] * width for _ in range(height)]
    for item in objects_of(image, MASKS):
        for y, row in enumerate(mask_of(item)):
            of_pixels[y] = [item.name if value else before for value, before in zip(row, of_pixels[y])]
    return {name: encode_rle([[value == name for value in row] for row in of_pixels]) for name in names}


def draw(folder: Path, names: Sequence[str] = tuple(SIZES), objects: Sequence[Object] = ()) -> list[Path]:
    """Writes images as PNG, with the boxes of objects in colours; returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / name for name in names]
    for path in paths:
        width, height = SIZES[path.name]
        base = 40 * list(SIZES).index(path.name) + 60
        rows = [[(base, base + 20, base)] * width for _ in range(height)]
        for number, item in enumerate(objects_of(path.name, objects)):
            x, y, w, h = map(int, item.box)
            for row in rows[y : y + h]:
                row[x : x + w] = [(250 - 40 * number, 90 * CLASSES.index(item.name), 30 * number)] * len(row[x : x + w])
        raw = b''.join(b'\0' + bytes(value for pixel in row for value in pixel) for row in rows)
        chunks = [(b'IHDR', struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0))]
        chunks += [(b'IDAT', zlib.compress(raw, 9)), (b'IEND', b'')]
        path.write_bytes(b'\x89PNG\r\n\x1a\n' + b''.join(map(_chunk, chunks)))
    return paths


def _chunk(chunk: tuple[bytes, bytes]) -> bytes:
    kind, data = chunk
    return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))


def as_coco(objects: Sequence[Object], first: int = 1) -> dict:
    """Returns objects as COCO, for tools that convert, with RLE for holes and crowds and categories from ``first``."""
    images = [dict(id=i, file_name=name, width=w, height=h) for i, (name, (w, h)) in enumerate(SIZES.items(), 1)]
    extra = dict(keypoints=KEYPOINTS, skeleton=[[a + 1, b + 1] for a, b in SKELETON])
    extra = extra if any(item.keypoints for item in objects) else {}
    categories = [dict(id=i, name=name, supercategory='', **extra) for i, name in enumerate(CLASSES, first)]
    annotations = []
    for i, item in enumerate(objects, 1):
        width, height = SIZES[item.image]
        segmentation: list | dict = [list(piece) for piece in item.pieces]
        if item.holes or item.crowd:
            segmentation = dict(size=[height, width], counts=encode_rle(mask_of(item)))
        entry = dict(id=i, image_id=list(SIZES).index(item.image) + 1, category_id=CLASSES.index(item.name) + first)
        entry |= dict(bbox=list(item.box), area=item.box[2] * item.box[3], iscrowd=int(item.crowd))
        entry |= dict(segmentation=segmentation)
        if item.keypoints:
            entry |= dict(keypoints=list(item.keypoints), num_keypoints=sum(v > 0 for v in item.keypoints[2::3]))
        annotations.append(entry)
    return dict(images=images, categories=categories, annotations=annotations)


def _entries(objects: Sequence[Object], keypoints: bool) -> Iterator[dict]:
    for item in objects:
        entry = {'class': item.name, **({'box': list(item.box)} if item.box else {})}
        if item.pieces:
            entry['mask'] = encode_rle(mask_of(item))
        if keypoints and item.keypoints:
            entry['keypoints'] = list(item.keypoints)
        if item.crowd:
            entry['crowd'] = True
        yield entry


def write_truth(
    folder: Path,
    objects: Sequence[Object],
    writes: str,
    *,
    images: Sequence[str] = tuple(SIZES),
    splits: dict[str, str] | None = None,
    classes: Sequence[str] = tuple(CLASSES),
    keypoints: Sequence[str] = (),
    flips: Sequence[int] = (),
    changes: Sequence[str] = (),
    decided: Sequence[str] = (),
    options: dict | None = None,
    refused: str = '',
    needs: Sequence[str] = (),
    read: str = '',
    box: float = 0.01,
    iou: float = 1.0,
    point: float = 0.01,
    seg_maps: dict[str, dict[str, list[int]]] | None = None,
) -> None:
    """Writes ``truth.json`` beside the folder ``data`` of a set.

    Args:
        folder: The folder of the set.
        objects: What a right reader gives; objects without ``pieces`` have no mask, those without ``box`` any box
            around their keypoints.
        writes: The format.
        images: Names of the images with annotations, empty ones included.
        splits: Split of each image, if the format has splits.
        classes: Names in the order of the format, or of the alphabet if it has none.
        keypoints: Names of the keypoints.
        flips: For each keypoint, the index of the one it becomes after a flip, if the format has it.
        changes: What the tool loses or changes, by its source.
        decided: Parts of the reader's notes and warnings about what it decides.
        options: Options of the reader.
        refused: Part of the error, if the format is not read.
        needs: Libraries that the reader needs.
        read: What is read, below ``data``.
        box, point: Largest distance of boxes and keypoints in pixels.
        iou: Smallest IoU of a mask.
        seg_maps: RLE of each class, by image.
    """
    truth = dict(writes=writes, classes=list(classes), keypoints=list(keypoints), flips=list(flips))
    truth |= dict(
        changes=list(changes),
        decided=list(decided),
        needs=list(needs),
        options=options or {},
        refused=refused,
        read=read,
    )
    truth['tolerance'] = dict(box=box, point=point, iou=iou)
    truth['images'] = {}
    for name in images:
        content = {'objects': list(_entries(objects_of(name, objects), bool(keypoints)))}
        if splits is not None:
            content['split'] = splits[name]
        if seg_maps is not None:
            content = {'seg_map': seg_maps[name], **({'split': splits[name]} if splits else {})}
        truth['images'][name] = content
    lines = json.dumps(truth, indent=1)
    (folder / 'truth.json').write_text(lines + '\n')
