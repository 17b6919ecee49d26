"""All names of an annotation file are relative to one folder: no image has the annotations of another."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from icconv_mm import annotations
from icconv_mm.app.annotations.images_on_disk import Files
from icconv_mm.app.annotations.roots import files_of_names

NESTED = ['a.jpg', 'images/a.jpg', 'images/images/a.jpg', 'sub/a.jpg', 'sub/images/a.jpg', 'labels/a.jpg', 'b.jpg']


def _files(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b'')
    return Files(root)


def _paths_of(files, names, *near):
    paths = files.images(names, *(files.root / folder for folder in near))
    return {name: str(path.relative_to(files.root)) for name, path in paths.items()}


def test_the_folder_of_most_names_comes_first(tmp_path):
    files = _files(tmp_path, *(f'images/{name}' for name in NESTED))
    assert _paths_of(files, NESTED, '.', 'images') == {name: f'images/{name}' for name in NESTED}


def test_first_folders_of_another_machine(tmp_path):
    files = _files(tmp_path, *(f'images/{name}' for name in NESTED))
    names = [f'/mnt/c/data/{name}' for name in NESTED]
    assert _paths_of(files, names, '.', 'images') == {name: f'images/{name[12:]}' for name in names}
    names = [name.replace('/', '\\') for name in names]
    assert _paths_of(files, names, '.', 'images') == {name: f'images/{path}' for name, path in zip(names, NESTED)}


def test_an_image_that_is_missing_gets_no_other_one(tmp_path):
    files = _files(tmp_path, 'images/a.jpg', 'images/b.jpg')
    assert _paths_of(files, ['a.jpg', 'images/a.jpg', 'b.jpg'], '.', 'images') == {
        'a.jpg': 'images/a.jpg',
        'b.jpg': 'images/b.jpg',
    }


def test_names_of_two_folders(tmp_path):
    files = _files(tmp_path, 'train/a.jpg', 'train/b.jpg', 'val/a.jpg', 'val/c.jpg')
    expected = {'a.jpg': 'train/a.jpg', 'b.jpg': 'train/b.jpg', 'c.jpg': 'val/c.jpg'}
    assert _paths_of(files, ['a.jpg', 'b.jpg', 'c.jpg'], 'train', 'val') == expected


def test_names_that_differ_only_in_dropped_folders_are_not_guessed(tmp_path):
    there = {tmp_path: {'0.jpg'}, tmp_path / 'cam1': {'1.jpg'}}
    names = ['cam1/0.jpg', 'cam2/0.jpg', 'cam1/1.jpg']
    assert files_of_names(names, [tmp_path], lambda folder: there.get(folder, ())) == {
        'cam1/1.jpg': tmp_path / 'cam1' / '1.jpg'
    }


@pytest.mark.parametrize('form', ['coco', 'yolo', 'cvat', 'labelstudio'])
@pytest.mark.parametrize('splits', [False, True])
def test_annotations_written_and_read_again_are_of_their_images(tmp_path, form, splits):
    """Each box begins at the grey level of its image; with splits, both have images of the same names."""
    pytest.importorskip('pycocotools')
    names = [f'{split}{name}' for split in (('train/', 'val/') if splits else ('',)) for name in NESTED]
    content = dict(images=[], annotations=[], categories=[dict(id=1, name='x')])
    for number, name in enumerate(names, 1):
        (tmp_path / 'set' / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((30, 40, 3), number, np.uint8)).save(tmp_path / 'set' / name, 'PNG')
        content['images'].append(dict(id=number, file_name=name, width=40, height=30))
        box = [number, number, 10, 10]
        content['annotations'].append(dict(id=number, image_id=number, category_id=1, bbox=box, area=100, iscrowd=0))
    (tmp_path / 'set' / 'labels.json').write_text(json.dumps(content))
    dataset = annotations.read(tmp_path / 'set', 'detection')
    for image in dataset if splits else ():
        image.split = Path(image.path).relative_to(tmp_path / 'set').parts[0]
    getattr(dataset, f'to_{form}')(tmp_path / 'out')
    again = annotations.read(tmp_path / 'out', 'detection')
    grey = [int(np.asarray(Image.open(image.path))[0, 0, 0]) for image in again]
    assert sorted(grey) == list(range(1, len(names) + 1))
    assert grey == [round(annotation.box[0]) for image in again for annotation in image.annotations]
