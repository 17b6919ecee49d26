"""Pictures, their splits, and the labels of each: none goes to another picture or into another split without a word."""

import json

import numpy as np
import pytest
from PIL import Image

from icconv_mm.data.found import Picture, assign_splits, split_of
from icconv_mm.data.prepare import find, prepare

pytest.importorskip('pycocotools')

SIZE = (16, 12)  # width, height


def draw(root, *names, size=SIZE):
    """Pictures: JPEGs of noise, or PNGs of a label map of 0 and 1."""
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
    """A file of one box for each picture."""
    images = [dict(id=i, file_name=name, width=size[0], height=size[1]) for i, name in enumerate(names)]
    boxes = boxes or [[1, 1, 5, 5]] * len(names)
    annotations = [dict(id=i, image_id=i, category_id=1, bbox=box) for i, box in enumerate(boxes)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(dict(images=images, annotations=annotations, categories=[dict(id=1, name='x')])))


def splits(root, task):
    """The split of each picture, by its path, as it is trained with."""
    (found,) = find(root)
    pictures = found.labelled(task)
    assign_splits(pictures)
    return {picture.path.relative_to(root).as_posix(): picture.split for picture in pictures}


def said(found):
    return '\n'.join(f'{file}: {what}' for file, what in found.problems)


def test_splits_in_names_of_folders():
    assert [split_of(name) for name in ('trainset', 'test_set', 'valimages', 'settest', 'trains')] == [
        *('train', 'test', 'val', '', '')
    ]


@pytest.mark.parametrize(
    ('there', 'made', 'note'),
    [
        (['', '', '', 'test', 'test'], {'train', 'val', 'test'}, '1 of 3 pictures'),
        (['', '', 'val'], {'train', 'val'}, '2 pictures are in no split: they train'),
        (['train', 'val', ''], {'train', 'val'}, '1 pictures are in no split: they train'),
        (['val', 'val', 'test'], {'train', 'val'}, '1 of 3 pictures'),
    ],
)
def test_pictures_of_a_split_stay_in_it(tmp_path, there, made, note):
    pictures = [Picture(tmp_path / f'{i}.jpg', split) for i, split in enumerate(there)]
    assert note in assign_splits(pictures) and {picture.split for picture in pictures} == made
    if made >= set(there) - {''}:
        assert all(picture.split == split for picture, split in zip(pictures, there) if split)


@pytest.mark.parametrize(
    ('lists', 'expected', 'problem'),
    [
        ({'train.txt': '0\n', 'val.txt': '1\n'}, {'0': 'train', '1': 'val'}, '2.jpg: is in none of the lists'),
        ({'train.txt': '0.jpg 1\n2.jpg', 'val.txt': '1.png'}, {'0': 'train', '1': 'val', '2': 'train'}, ''),
        (
            {'train.txt': '0\n1\n2', 'val.txt': '2'},
            {'0': 'train', '1': 'train', '2': 'val'},
            '2.jpg: is in the lists of train and val: taken for val',
        ),
        ({'train_val.txt': '0\n1', 'test.txt': '2'}, {'0': 'val', '1': 'train', '2': 'test'}, ''),
        ({'val.txt': 'none'}, {'0': 'val', '1': 'train', '2': 'train'}, 'name none of its pictures'),
        (
            {'ImageSets/Segmentation/train.txt': '0\n1', 'ImageSets/Segmentation/val.txt': '2'}
            | {'ImageSets/Main/train.txt': '2', 'ImageSets/Main/train_val.txt': '0 -1'},
            {'0': 'train', '1': 'train', '2': 'val'},
            '',
        ),
    ],
)
def test_lists_of_label_maps(tmp_path, lists, expected, problem):
    for number in range(3):
        draw(tmp_path, f'images/{number}.jpg', f'masks/{number}.png')
    write(tmp_path, lists)
    assert splits(tmp_path, 'semantic') == {f'images/{name}.jpg': split for name, split in expected.items()}
    text = said(find(tmp_path)[0])
    assert problem in text and bool(text) == bool(problem)


def test_lists_of_equal_names_in_several_folders(tmp_path):
    for split in ('train', 'val'):
        draw(tmp_path, *(f'{kind}/{split}/my 0.{end}' for kind, end in (('a', 'jpg'), ('masks', 'png'))))
        draw(tmp_path, *(f'{kind}/{split}s/1.{end}' for kind, end in (('a', 'jpg'), ('masks', 'png'))))
        write(tmp_path, {f'{split}.txt': f'/home/you/a/{split}s/1.jpg /home/you/masks/{split}s/1.png\n'})
    assert splits(tmp_path, 'semantic') == {
        f'a/{folder}.jpg': folder[: folder.index('/')].rstrip('s')
        for folder in ('train/my 0', 'trains/1', 'val/my 0', 'vals/1')
    }


def test_pictures_of_twelve_bits_are_left_out(tmp_path):
    """OpenCV loads the upper eight of sixteen bits."""
    for number, most in enumerate((4095, 65535)):
        path = tmp_path / f'{number}.png'
        Image.fromarray(np.linspace(0, most, 192).reshape(12, 16).astype(np.uint16)).save(path)
    coco(tmp_path / 'coco.json', ['0.png', '1.png'])
    (found,) = find(tmp_path)
    prepare(found, 'boxes', tmp_path / 'out')
    assert [what for _, what in found.problems] == [
        'pixels go up to 4095 of 65535, which are loaded as 15 of 255: save it with 8 bits: left out'
    ]
