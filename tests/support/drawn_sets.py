"""Small sets of annotations that tests write line by line, and what is read of them."""

import json
from contextlib import contextmanager

import numpy as np
from PIL import Image

from icconv_mm.app.annotations.dataset import assign_splits
from icconv_mm.app.annotations.find import read_datasets

SIZE = (16, 12)  # width, height


def draw(root, *names, size=SIZE):
    """Images: JPEGs of noise, or PNGs of a segmentation map of 0 and 1."""
    for number, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.zeros(size[::-1], np.uint8)
        pixels[:, size[0] // 2 :] = 1
        if path.suffix.lower() != '.png':
            pixels = np.random.default_rng(number).integers(0, 255, (*size[::-1], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)


def write(root, texts):
    for name, text in texts.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def coco(path, names, boxes=None, size=SIZE):
    """A file of one box for each image."""
    images = [dict(id=i, file_name=name, width=size[0], height=size[1]) for i, name in enumerate(names)]
    boxes = boxes or [[1, 1, 5, 5]] * len(names)
    annotations = [dict(id=i, image_id=i, category_id=1, bbox=box) for i, box in enumerate(boxes)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(dict(images=images, annotations=annotations, categories=[dict(id=1, name='x')])))


def voc(root, *names, filename='{}.jpg', label='x'):
    for name in names:
        box = '<bndbox><xmin>2</xmin><ymin>2</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>'
        text = f'<filename>{filename.format(name.split("/")[-1])}</filename><object><name>{label}</name>{box}</object>'
        write(root, {f'{name}.xml': f'<annotation>{text}</annotation>'})


@contextmanager
def edited(path):
    """The content of a JSON file, which is written back at the end."""
    content = json.loads(path.read_text())
    yield content
    path.write_text(json.dumps(content))


def only(root, **options):
    """The only dataset of a folder."""
    (dataset,) = read_datasets(root, **options)
    return dataset


def entries_of(converted):
    """The annotations in the files of COCO's that were written of a dataset."""
    contents = [json.loads(converted.files[split].read_text()) for split in converted.splits]
    return [entry for content in contents for entry in content['annotations']]


def splits(root, task):
    """The split of each image, by its path, as it is trained with."""
    images = only(root).labelled(task)
    assign_splits(images)
    return {image.path.relative_to(root).as_posix(): image.split for image in images}


def said(dataset):
    return '\n'.join(f'{file}: {what}' for file, what in dataset.warnings)


def labelme(path, *shapes, **more):
    shapes = [dict(zip(('label', 'shape_type', 'points', 'group_id'), shape)) for shape in shapes]
    draw(path.parent, f'{path.stem}.jpg')
    path.write_text(json.dumps(dict(shapes=shapes, imagePath=f'{path.stem}.jpg', **more)))
