"""Pictures, their splits, and the labels of each: none goes to another picture or into another split without a word."""

import json

import numpy as np
import pytest
from PIL import Image

from icconv_mm.data.found import Picture, assign_splits, split_of
from icconv_mm.data.prepare import find, prepare
from icconv_mm.errors import InputError

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


def voc(root, *names, filename='{}.jpg', label='x'):
    for name in names:
        box = '<bndbox><xmin>2</xmin><ymin>2</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>'
        text = f'<filename>{filename.format(name.split("/")[-1])}</filename><object><name>{label}</name>{box}</object>'
        write(root, {f'{name}.xml': f'<annotation>{text}</annotation>'})


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


@pytest.mark.parametrize(
    ('lists', 'expected'),
    [
        ({'Main/trainval': '0\n1', 'Main/test': '2'}, {'0': 'val', '1': 'train', '2': 'test'}),
        (
            {'Main/train': '0\n1', 'Main/val': '2', 'Segmentation/train': '2', 'Segmentation/val': '0'},
            {'0': 'train', '1': 'train', '2': 'val'},
        ),
    ],
)
def test_lists_of_voc(tmp_path, lists, expected):
    draw(tmp_path, *(f'JPEGImages/{number}.jpg' for number in range(3)))
    voc(tmp_path, *(f'Annotations/{number}' for number in range(3)))
    write(tmp_path, {f'ImageSets/{name}.txt': text for name, text in lists.items()})
    assert splits(tmp_path, 'boxes') == {f'JPEGImages/{name}.jpg': split for name, split in expected.items()}


def test_coco_names_that_lead_to_one_picture(tmp_path):
    """The labels of a picture that was not copied do not go to its namesake."""
    draw(tmp_path, 'cam1/0.jpg')
    coco(tmp_path / 'a.json', ['cam2/0.jpg', 'cam1/0.jpg'], [[8, 8, 3, 3], [1, 1, 5, 5]])
    (found,) = find(tmp_path)
    (picture,) = found.pictures.values()
    assert [thing.box for thing in picture.things] == [[1, 1, 5, 5]] and 'cam2/0.jpg' in found.missing[0]
    coco(tmp_path / 'a.json', ['cam2/0.jpg', 'cam3/0.jpg'])
    with pytest.raises(InputError, match=r'2 names of labels lead to it: cam2/0.jpg, cam3/0.jpg'):
        find(tmp_path)


def test_areas_of_coco_that_are_no_numbers(tmp_path):
    draw(tmp_path, '0.jpg')
    coco(tmp_path / 'a.json', ['0.jpg'])
    write(tmp_path, {'a.json': (tmp_path / 'a.json').read_text().replace('"bbox"', '"area": "25", "bbox"')})
    (found,) = find(tmp_path)
    made = prepare(found, 'boxes', tmp_path / 'out')
    assert json.loads(made.files['train'].read_text())['annotations'][0]['area'] == 25
    assert '"area" is \'25\', no number' in said(found)


def test_equal_names_of_coco_in_folders_of_the_splits(tmp_path):
    for split in ('train', 'val'):
        draw(tmp_path, f'{split}/0.jpg', f'{split}/1.jpg')
        coco(tmp_path / f'annotations/instances_{split}.json', ['0.jpg', '1.jpg'])
    expected = {'train/0.jpg': 'train', 'train/1.jpg': 'train', 'val/0.jpg': 'val', 'val/1.jpg': 'val'}
    assert splits(tmp_path, 'boxes') == expected


@pytest.mark.parametrize(
    ('folder', 'files', 'kept'),
    [
        ('images', {'test': ['1.jpg'], 'train': ['0.jpg'], 'val': ['1.jpg']}, {'0': 'train', '1': 'val'}),
        ('train', {'train': ['0.jpg', '1.jpg'], 'val': ['1.jpg']}, {'0': 'val', '1': 'train'}),
    ],
)
def test_a_picture_of_two_coco_files_has_the_labels_of_one(tmp_path, folder, files, kept):
    """It validates, unless its folder says that the file of another split means a picture that is not there."""
    draw(tmp_path, f'{folder}/0.jpg', f'{folder}/1.jpg')
    for split, names in files.items():
        coco(tmp_path / f'labels/{split}.json', names)
    (found,) = find(tmp_path)
    assert '1 of its pictures are in another file' in said(found)
    assert {len(picture.things) for picture in found.pictures.values()} == {1}
    assert splits(tmp_path, 'boxes') == {f'{folder}/{name}.jpg': split for name, split in kept.items()}


def test_voc_finds_pictures_by_the_names_of_its_files(tmp_path):
    """In folders of equal names, with suffixes in capitals; a stale ``filename`` takes no picture of another file."""
    for split in ('train', 'val'):
        draw(tmp_path, f'JPEGImages/{split}/0.jpg')
        voc(tmp_path, f'Annotations/{split}/0')
    draw(tmp_path, 'more/images/1.JPG', 'more/images/2.jpg')
    voc(tmp_path, 'more/annotations/1', filename='2.jpg', label='one')
    voc(tmp_path, 'more/annotations/0', filename='2.jpg', label='gone')
    voc(tmp_path, 'more/annotations/2', label='two')
    (found,) = find(tmp_path)
    assert {p.path.relative_to(tmp_path).as_posix(): p.things[0].name for p in found.pictures.values()} == {
        'JPEGImages/train/0.jpg': 'x',
        'JPEGImages/val/0.jpg': 'x',
        'more/images/1.JPG': 'one',
        'more/images/2.jpg': 'two',
    }
    ((file, what),) = found.problems
    assert file.endswith('annotations/0.xml') and 'other labels of' in what and '2.jpg' in what


def test_labels_for_another_size_are_left_out(tmp_path):
    draw(tmp_path, '0.jpg', '1.jpg')
    draw(tmp_path, '2.jpg', size=(8, 6))
    coco(tmp_path / 'coco.json', ['0.jpg', '1.jpg', '2.jpg'])
    (found,) = find(tmp_path)
    made = prepare(found, 'boxes', tmp_path / 'out')
    assert sum(made.splits.values()) == 2 and '2.jpg: is 8 x 6, but coco.json says 16 x 12: left out' in said(found)
    coco(tmp_path / 'coco.json', ['0.jpg', '1.jpg'], size=(32, 24))
    with pytest.raises(InputError, match=r'none of 2 pictures can be used, the first: .*0.jpg: is 16 x 12, but coco'):
        prepare(find(tmp_path)[0], 'boxes', tmp_path / 'out')


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


def test_folders_of_classes_beside_others(tmp_path):
    """Runs of a training are no class, and pictures of no class do not hide those of classes."""
    draw(tmp_path, *(f'train/{name}/0.jpg' for name in ('cat', 'dog')), 'test/0.jpg', 'work_dirs/cat_classes/0.jpg')
    (found,) = find(tmp_path)
    assert sorted(picture.label for picture in found.pictures.values()) == ['cat', 'dog']
    assert said(found) == f'{tmp_path / "test"}: its pictures are in no folder of a class: left out'


def test_labels_of_which_none_can_be_used(tmp_path):
    draw(tmp_path, 'images/0.jpg')
    write(tmp_path, {'labels/0.txt': '0 nan 0.5 0.2 0.2\n', 'data.yaml': 'names: [a]\ntrain: images\n'})
    with pytest.raises(InputError, match=r"none of its labels can be used, the first: .*0\.txt: line 1: '0 nan 0\.5"):
        find(tmp_path)
