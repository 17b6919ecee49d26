"""Three small images with two objects each, in the formats that people have them in."""

import csv
import json
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
import yaml
from PIL import Image

NAMES = ('cat', 'dog')
SIZE = (64, 48)  # width, height
# per image: class, x, y, width, height in whole pixels
OBJECTS = (
    ((0, 4, 6, 20, 16), (1, 30, 10, 24, 30)),
    ((1, 8, 8, 12, 30), (0, 40, 4, 16, 12)),
    ((0, 10, 20, 30, 20), (1, 44, 30, 14, 14)),
)
SPLITS = ('train', 'train', 'val')
POINTS = ('left_ear', 'right_ear', 'tail')


def image(number: int) -> np.ndarray:
    """[H, W, 3]: bright rectangles on grey."""
    image = np.full((SIZE[1], SIZE[0], 3), 60 + 20 * number, dtype=np.uint8)
    for label, x, y, w, h in OBJECTS[number]:
        image[y : y + h, x : x + w] = (230, 40, 40) if label == 0 else (40, 60, 230)
    return image


def mask(number: int, annotation: int) -> np.ndarray:
    pixels = np.zeros(SIZE[::-1], dtype=np.uint8)
    _, x, y, w, h = OBJECTS[number][annotation]
    pixels[y : y + h, x : x + w] = 1
    return pixels


def polygon(x: int, y: int, w: int, h: int) -> list[int]:
    return [x, y, x + w, y, x + w, y + h, x, y + h]


def points(x: int, y: int, w: int, h: int) -> list[tuple[int, int]]:
    return [(x + 2, y + 2), (x + w - 3, y + 2), (x + w // 2, y + h - 3)]


def _images(folder: Path) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f'p{number}.png' for number in range(len(OBJECTS))]
    for number, path in enumerate(paths):
        Image.fromarray(image(number)).save(path)
    return paths


def coco(root: Path, kind: str = 'polygons') -> Path:
    """``train.json`` and ``val.json``: polygons, RLE as lists (``'runs'``) or compressed, or keypoints."""
    from pycocotools.mask import encode

    _images(root / 'images')
    for split in ('train', 'val'):
        images, annotations = [], []
        for number in [n for n, image_split in enumerate(SPLITS) if image_split == split]:
            images.append(dict(id=number + 7, file_name=f'p{number}.png', width=SIZE[0], height=SIZE[1]))
            for annotation, (label, *box) in enumerate(OBJECTS[number]):
                entry = dict(image_id=number + 7, category_id=3 + 4 * label, bbox=box, area=box[2] * box[3], iscrowd=0)
                if kind == 'polygons':
                    entry['segmentation'] = [polygon(*box)]
                elif kind == 'runs':
                    flat = mask(number, annotation).T.ravel()
                    edges = np.flatnonzero(np.diff(np.concatenate([[0], flat, [0]])))
                    counts = np.diff(np.concatenate([[0], edges, [flat.size]])).tolist()
                    entry['segmentation'] = dict(size=[SIZE[1], SIZE[0]], counts=counts)
                elif kind == 'compressed':
                    runs = encode(np.asfortranarray(mask(number, annotation)))
                    entry['segmentation'] = dict(size=[SIZE[1], SIZE[0]], counts=runs['counts'].decode())
                else:
                    entry['keypoints'] = [value for x, y in points(*box) for value in (x, y, 2)]
                annotations.append(dict(entry, id=len(annotations) + 1))
        categories = [dict(id=3 + 4 * i, name=name) for i, name in enumerate(NAMES)]
        if kind == 'keypoints':
            for category in categories:
                category.update(keypoints=list(POINTS), skeleton=[[1, 3], [2, 3]])
        text = json.dumps(dict(images=images, annotations=annotations, categories=categories))
        (root / f'{split}.json').write_text(text)
    return root


def yolo(root: Path, kind: str = 'boxes') -> Path:
    """``data.yaml`` with gaps in its ids, ``images/SPLIT`` and ``labels/SPLIT``: boxes, polygons or keypoints."""
    ids = (2, 9)
    for number in range(len(OBJECTS)):
        folder = root / 'images' / SPLITS[number]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image(number)).save(folder / f'p{number}.png')
        lines = []
        for label, x, y, w, h in OBJECTS[number]:
            box = [(x + w / 2) / SIZE[0], (y + h / 2) / SIZE[1], w / SIZE[0], h / SIZE[1]]
            values = [v / SIZE[i % 2] for i, v in enumerate(polygon(x, y, w, h))] if kind == 'segmentations' else box
            if kind == 'keypoints':
                values = [*box, *(value for px, py in points(x, y, w, h) for value in (px / SIZE[0], py / SIZE[1], 2))]
            lines.append(' '.join(map(str, (ids[label], *values))))
        labels = root / 'labels' / SPLITS[number] / f'p{number}.txt'
        labels.parent.mkdir(parents=True, exist_ok=True)
        labels.write_text('\n'.join(lines) + '\n')
    content = dict(path='.', train='images/train', val='images/val', names=dict(zip(ids, NAMES)))
    if kind == 'keypoints':
        content |= dict(kpt_shape=[3, 3], flip_idx=[1, 0, 2])
    (root / 'data.yaml').write_text(yaml.safe_dump(content))
    return root


def voc(root: Path) -> Path:
    """``JPEGImages``, ``Annotations`` and ``ImageSets``; boxes count pixels from 1 and include the last."""
    _images(root / 'JPEGImages')
    for folder in ('Annotations', 'ImageSets/Main'):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for number in range(len(OBJECTS)):
        objects = ''.join(
            f'<object><name>{escape(NAMES[label])}</name><difficult>0</difficult><bndbox><xmin>{x + 1}</xmin>'
            f'<ymin>{y + 1}</ymin><xmax>{x + w}</xmax><ymax>{y + h}</ymax></bndbox></object>'
            for label, x, y, w, h in OBJECTS[number]
        )
        size = f'<size><width>{SIZE[0]}</width><height>{SIZE[1]}</height></size>'
        text = f'<annotation><filename>p{number}.png</filename>{size}{objects}</annotation>'
        (root / 'Annotations' / f'p{number}.xml').write_text(text)
    for split in ('train', 'val'):
        names = [f'p{number}' for number, image_split in enumerate(SPLITS) if image_split == split]
        (root / 'ImageSets' / 'Main' / f'{split}.txt').write_text('\n'.join(names) + '\n')
    return root


def cvat(root: Path) -> Path:
    """``annotations.xml`` with a polygon for cats and a mask for dogs."""
    _images(root / 'images')
    images = ''
    for number in range(len(OBJECTS)):
        parts = ''
        for label, x, y, w, h in OBJECTS[number]:
            corners = polygon(x, y, w, h)
            text = ';'.join(f'{a},{b}' for a, b in zip(corners[::2], corners[1::2]))
            mask_of = f'<mask label="dog" rle="0, {w * h}" left="{x}" top="{y}" width="{w}" height="{h}"/>'
            parts += f'<polygon label="cat" points="{text}"/>' if label == 0 else mask_of
        images += f'<image name="p{number}.png" subset="{SPLITS[number]}">{parts}</image>'
    (root / 'annotations.xml').write_text(f'<annotations>{images}</annotations>')
    return root


def cvat_video(root: Path) -> Path:
    """``annotations.xml`` with a track for each object, ``images/SPLIT/frame_*.png``: polygons of cats, dogs' masks."""
    tracks = ''
    for number, split in enumerate(SPLITS):
        folder = root / 'images' / split
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image(number)).save(folder / f'frame_{number:06}.png')
        for label, x, y, w, h in OBJECTS[number]:
            corners = polygon(x, y, w, h)
            text = ';'.join(f'{a},{b}' for a, b in zip(corners[::2], corners[1::2]))
            shapes = f'<polygon frame="{number}" outside="0" points="{text}"/>'
            shapes += f'<polygon frame="{number + 1}" outside="1" points="{text}"/>'
            if label == 1:
                mask_of = f'rle="0, {w * h}" left="{x}" top="{y}" width="{w}" height="{h}"'
                shapes = f'<mask frame="{number}" outside="0" {mask_of}/>'
            tracks += f'<track label="{NAMES[label]}" subset="{split}">{shapes}</track>'
    (root / 'annotations.xml').write_text(f'<annotations>{tracks}</annotations>')
    return root


def mit_labelme(root: Path) -> Path:
    """``Images`` and ``Annotations``: XML files of polygons, as in the format of MIT's LabelMe."""
    (root / 'Annotations').mkdir(parents=True)
    for path, annotations in zip(_images(root / 'Images'), OBJECTS):
        objects = ''
        for label, *box in annotations:
            corners = polygon(*box)
            points = ''.join(f'<pt><x>{x}</x><y>{y}</y></pt>' for x, y in zip(corners[::2], corners[1::2]))
            objects += f'<object><name>{NAMES[label]}</name><deleted>0</deleted><polygon>{points}</polygon></object>'
        text = f'<annotation><filename>{path.name}</filename>{objects}</annotation>'
        (root / 'Annotations' / f'{path.stem}.xml').write_text(text)
    return root


def labelme(root: Path) -> Path:
    """A JSON beside each image: rectangles for cats, polygons for dogs."""
    for path, annotations in zip(_images(root), OBJECTS):
        shapes = []
        for label, x, y, w, h in annotations:
            corners = [[x, y], [x + w, y + h]] if label == 0 else np.reshape(polygon(x, y, w, h), (4, 2)).tolist()
            kind = 'rectangle' if label == 0 else 'polygon'
            shapes.append(dict(label=NAMES[label], points=corners, group_id=None, shape_type=kind))
        path.with_suffix('.json').write_text(json.dumps(dict(shapes=shapes, imagePath=path.name)))
    return root


def label_studio(root: Path) -> Path:
    """``tasks.json``, Label Studio's own: rectangles for cats, polygons for dogs, in percent of the sides."""
    tasks = []
    for path, annotations in zip(_images(root / 'images'), OBJECTS):
        result = []
        for label, x, y, w, h in annotations:
            kind = 'rectanglelabels' if label == 0 else 'polygonlabels'
            corners = (np.reshape(polygon(x, y, w, h), (4, 2)) * 100 / SIZE).tolist()
            (left, top), _, (right, bottom), _ = corners
            value = dict(x=left, y=top, width=right - left, height=bottom - top) if label == 0 else dict(points=corners)
            value[kind] = [NAMES[label]]
            result.append(dict(type=kind, original_width=SIZE[0], original_height=SIZE[1], value=value))
        image_of = f'/data/upload/1/0a1b2c3d-{path.name}'
        tasks.append(
            dict(id=len(tasks), annotations=[dict(was_cancelled=False, result=result)], data=dict(image=image_of))
        )
    (root / 'tasks.json').write_text(json.dumps(tasks))
    return root


def masks(root: Path) -> Path:
    """``ID/images/ID.png`` and ``ID/masks/*.png``, one of 0 and 255 for each object."""
    for number in range(len(OBJECTS)):
        folder = root / f'p{number}'
        for name in ('images', 'masks'):
            (folder / name).mkdir(parents=True)
        Image.fromarray(image(number)).convert('RGBA').save(folder / 'images' / f'p{number}.png')
        for annotation in range(len(OBJECTS[number])):
            Image.fromarray(255 * mask(number, annotation)).save(folder / 'masks' / f'{annotation}.png')
    return root


def seg_maps(root: Path, kind: str = 'plain', ignore_index: int = 11) -> Path:
    """``SPLIT`` and ``SPLITannot``: 0 background, 1 cat, 2 dog, ``void`` in the corner; or colours with a table."""
    colors = np.array([(0, 0, 0), (200, 0, 0), (0, 0, 200), (9, 9, 9)], dtype=np.uint8)
    for number in range(len(OBJECTS)):
        labels = np.zeros(SIZE[::-1], dtype=np.uint8)
        for label, x, y, w, h in OBJECTS[number]:
            labels[y : y + h, x : x + w] = label + 1
        labels[:4, :4] = 3 if kind == 'colors' else ignore_index
        seg_map = Image.fromarray(colors[labels] if kind == 'colors' else labels)
        if kind == 'palette':
            seg_map.putpalette(list(range(256)) * 3)
        for name, content in ((SPLITS[number], Image.fromarray(image(number))), (f'{SPLITS[number]}annot', seg_map)):
            (root / name).mkdir(parents=True, exist_ok=True)
            content.save(root / name / f'p{number}.png')
    if kind == 'colors':
        rows = [f'{name},{r},{g},{b}' for name, (r, g, b) in zip(('background', 'cat', 'dog', 'void'), colors.tolist())]
        (root / 'class_dict.csv').write_text('\n'.join(['name,r,g,b', *rows]) + '\n')
    return root


def deeplabcut(root: Path) -> Path:
    """``config.yaml`` and a CSV in ``labeled-data/video``: the first thing of each image, and one that is gone."""
    folder = root / 'labeled-data' / 'video'
    _images(folder)
    (root / 'config.yaml').write_text(yaml.safe_dump(dict(bodyparts=list(POINTS), skeleton=[['left_ear', 'tail']])))
    with open(folder / 'CollectedData_me.csv', 'w', newline='') as file:
        table = csv.writer(file)
        table.writerow(['scorer', *['me'] * 6])
        table.writerow(['bodyparts', *(part for part in POINTS for _ in 'xy')])
        table.writerow(['coords', *['x', 'y'] * 3])
        for number in range(len(OBJECTS) + 1):
            keypoints = points(*OBJECTS[number % 3][0][1:])
            values = [value for point in keypoints for value in point]
            table.writerow(
                [f'labeled-data/video/p{number}.png', *(['', ''] if number == 1 else values[:2]), *values[2:]]
            )
    return root


def folders(root: Path) -> Path:
    """``cat/*.png`` and ``dog/*.png``, without splits."""
    for label, name in enumerate(NAMES):
        (root / name).mkdir(parents=True)
        for number in range(4):
            image = np.full((40, 40, 3), (200, 60, 60) if label == 0 else (60, 60, 200), dtype=np.uint8)
            image[number * 4 : number * 4 + 8] = 255
            Image.fromarray(image).save(root / name / f'{name}{number}.png')
    return root
