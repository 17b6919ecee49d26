"""Suite 'reading': large sets of annotations, against pycocotools' ``COCO`` and against reading the bytes.

The sets are drawn: COCO's JSON of as many images and objects as train2017 has, and 100,000 text files of YOLO.
"""

import contextlib
import io
import json
import os
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from icconv_mm import annotations
from icconv_workshop.benchmark.harness import Disagreement
from icconv_workshop.benchmark.report import Figure
from icconv_workshop.benchmark.timing import Options, interleave

IMAGES, OBJECTS, FILES = 118_000, 860_000, 100_000
COCO_LIMIT, YOLO_LIMIT = 1.5, 2.0


def run(options: Options) -> Iterator[Figure]:
    """COCO's JSON, then YOLO's text files."""
    for name, write, reference, limit in (
        ('COCO, against pycocotools', _write_coco, _read_by_pycocotools, COCO_LIMIT),
        ('YOLO, against reading the bytes', _write_yolo, _read_bytes, YOLO_LIMIT),
    ):
        if options.only not in name:
            continue
        with tempfile.TemporaryDirectory() as temporary:
            count = write(Path(temporary), options.scale)
            if (images := _count(temporary)) != count:
                raise Disagreement(f'{name}: {images} objects were read, {count} were written')
            times = interleave({'ours': partial(_count, temporary), 'other': partial(reference, temporary)}, options)
        limit = limit if options.scale == 1 else None
        yield Figure('reading', name, times['ours'], times['other'], limit, {'objects': count})


def _count(folder: str) -> int:
    return sum(1 for _ in annotations.read(folder).annotations())


def _read_by_pycocotools(folder: str) -> None:
    from pycocotools.coco import COCO

    with contextlib.redirect_stdout(io.StringIO()):
        COCO(os.path.join(folder, 'instances_train.json'))


def _read_bytes(folder: str) -> None:
    for path in Path(folder, 'labels').iterdir():
        path.read_bytes()


def _link_images(folder: Path, count: int) -> list[str]:
    """Writes images of 640 x 480 pixels, as hard links to a few files, and returns their names."""
    folder.mkdir()
    names = [f'{number:012}.jpg' for number in range(count)]
    for number, name in enumerate(names):
        if number % 50_000 == 0:  # most file systems allow 65,000 links to a file
            first = folder / name
            Image.new('RGB', (640, 480)).save(first)
        else:
            os.link(first, folder / name)
    return names


def _write_coco(root: Path, scale: float) -> int:
    names = _link_images(root / 'images', round(IMAGES * scale))
    random, count = np.random.default_rng(0), round(OBJECTS * scale)
    boxes = random.uniform((0, 0, 5, 5), (500, 350, 130, 120), (count, 4)).round(2)
    turns = np.linspace(0, 2 * np.pi, 25, endpoint=False)
    circle = np.stack([np.cos(turns), np.sin(turns)], 1)
    entries = []
    for number, (box, image) in enumerate(zip(boxes, random.integers(0, len(names), count).tolist()), 1):
        polygon = (box[:2] + box[2:] / 2 * (1 + circle)).round(2).ravel().tolist()
        annotation = dict(bbox=box.tolist(), area=float(box[2] * box[3]), segmentation=[polygon], iscrowd=0)
        entries.append(dict(id=number, image_id=image, category_id=1 + number % 80, **annotation))
    images = [dict(id=i, file_name=name, width=640, height=480) for i, name in enumerate(names)]
    categories = [dict(id=i, name=f'class {i}') for i in range(1, 81)]
    content = dict(images=images, annotations=entries, categories=categories)
    (root / 'instances_train.json').write_text(json.dumps(content))
    return count


def _write_yolo(root: Path, scale: float) -> int:
    names = _link_images(root / 'images', round(FILES * scale))
    (root / 'labels').mkdir()
    boxes = np.random.default_rng(0).uniform(0.2, 0.3, (len(names), 8, 4)).round(6).tolist()
    for name, rows in zip(names, boxes):
        lines = (f'{label % 3} {" ".join(map(str, box))}\n' for label, box in enumerate(rows))
        (root / 'labels' / name).with_suffix('.txt').write_text(''.join(lines))
    (root / 'data.yaml').write_text('names: [a, b, c]\ntrain: images\n')
    return 8 * len(names)
