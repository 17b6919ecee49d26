"""Images, their splits, and the labels of each: none goes to another image or into another split without a word."""

import io
import json
import re
from pathlib import Path, PurePath

import cv2
import numpy as np
import pytest
from drawn_sets import SIZE, coco, draw, said, splits, voc, write
from PIL import Image

from icconv_mm.app.annotations import images_on_disk
from icconv_mm.app.annotations.convert import convert_dataset
from icconv_mm.app.annotations.dataset import AnnotatedImage, Dataset, assign_splits
from icconv_mm.app.annotations.find import read_datasets
from icconv_mm.app.annotations.images_on_disk import ByEnd, Files, followed, located, split_of
from icconv_mm.app.annotations.readers import lists
from icconv_mm.datasets import image_files, limits
from icconv_mm.datasets.reading import DatasetError, read_yaml
from icconv_mm.errors import InputError

pytest.importorskip('pycocotools')


def test_splits_in_names_of_folders():
    assert [split_of(name) for name in ('trainset', 'test_set', 'valimages', 'settest', 'trains')] == [
        *('train', 'test', 'val', '', '')
    ]


@pytest.mark.parametrize(
    ('there', 'expected', 'note'),
    [
        (['', '', '', 'test', 'test'], {'train', 'val', 'test'}, '1 of 3 images'),
        (['', '', 'val'], {'train', 'val'}, '2 images are in no split: they train'),
        (['train', 'val', ''], {'train', 'val'}, '1 images are in no split: they train'),
        (['val', 'val', 'test'], {'train', 'val'}, '1 of 3 images'),
    ],
)
def test_images_of_a_split_stay_in_it(tmp_path, there, expected, note):
    images = [AnnotatedImage(tmp_path / f'{i}.jpg', split) for i, split in enumerate(there)]
    assert note in assign_splits(images) and {image.split for image in images} == expected
    if expected >= set(there) - {''}:
        assert all(image.split == split for image, split in zip(images, there) if split)


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
        ({'val.txt': 'none'}, {'0': 'val', '1': 'train', '2': 'train'}, 'name none of its images'),
        (
            {'ImageSets/Segmentation/train.txt': '0\n1', 'ImageSets/Segmentation/val.txt': '2'}
            | {'ImageSets/Main/train.txt': '2', 'ImageSets/Main/train_val.txt': '0 -1'},
            {'0': 'train', '1': 'train', '2': 'val'},
            '',
        ),
    ],
)
def test_lists_of_seg_maps(tmp_path, lists, expected, problem):
    for number in range(3):
        draw(tmp_path, f'images/{number}.jpg', f'masks/{number}.png')
    write(tmp_path, lists)
    assert splits(tmp_path, 'semantic') == {f'images/{name}.jpg': split for name, split in expected.items()}
    text = said(read_datasets(tmp_path)[0])
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
    assert splits(tmp_path, 'detection') == {f'JPEGImages/{name}.jpg': split for name, split in expected.items()}


def test_coco_names_that_lead_to_one_image(tmp_path):
    """The labels of an image that was not copied do not go to its namesake."""
    draw(tmp_path, 'cam1/0.jpg')
    coco(tmp_path / 'a.json', ['cam2/0.jpg', 'cam1/0.jpg'], [[8, 8, 3, 3], [1, 1, 5, 5]])
    (dataset,) = read_datasets(tmp_path)
    (image,) = dataset.images.values()
    assert [annotation.box for annotation in image.annotations] == [[1, 1, 5, 5]] and 'cam2/0.jpg' in dataset.missing[0]
    coco(tmp_path / 'a.json', ['cam2/0.jpg', 'cam3/0.jpg'])
    with pytest.raises(InputError, match=r'2 annotated names lead to it: cam2/0.jpg, cam3/0.jpg'):
        read_datasets(tmp_path)


def test_areas_of_coco_that_are_no_numbers(tmp_path):
    draw(tmp_path, '0.jpg')
    coco(tmp_path / 'a.json', ['0.jpg'])
    write(tmp_path, {'a.json': (tmp_path / 'a.json').read_text().replace('"bbox"', '"area": "25", "bbox"')})
    (dataset,) = read_datasets(tmp_path)
    converted = convert_dataset(dataset, 'detection', tmp_path / 'out')
    assert json.loads(converted.files['train'].read_text())['annotations'][0]['area'] == 25
    assert '"area" is \'25\', no number' in said(dataset)


def test_equal_names_of_coco_in_folders_of_the_splits(tmp_path):
    for split in ('train', 'val'):
        draw(tmp_path, f'{split}/0.jpg', f'{split}/1.jpg')
        coco(tmp_path / f'annotations/instances_{split}.json', ['0.jpg', '1.jpg'])
    expected = {'train/0.jpg': 'train', 'train/1.jpg': 'train', 'val/0.jpg': 'val', 'val/1.jpg': 'val'}
    assert splits(tmp_path, 'detection') == expected


@pytest.mark.parametrize(
    ('folder', 'files', 'expected'),
    [
        ('images', {'test': ['1.jpg'], 'train': ['0.jpg'], 'val': ['1.jpg']}, {'0': 'train', '1': 'val'}),
        ('train', {'train': ['0.jpg', '1.jpg'], 'val': ['1.jpg']}, {'0': 'val', '1': 'train'}),
    ],
)
def test_a_image_of_two_coco_files_has_the_labels_of_one(tmp_path, folder, files, expected):
    """It validates, unless its folder says that the file of another split means an image that is not there."""
    draw(tmp_path, f'{folder}/0.jpg', f'{folder}/1.jpg')
    for split, names in files.items():
        coco(tmp_path / f'labels/{split}.json', names)
    (dataset,) = read_datasets(tmp_path)
    assert '1 of its images are in another file' in said(dataset)
    assert {len(image.annotations) for image in dataset.images.values()} == {1}
    assert splits(tmp_path, 'detection') == {f'{folder}/{name}.jpg': split for name, split in expected.items()}


def test_voc_finds_images_by_the_names_of_its_files(tmp_path):
    """In folders of equal names, with suffixes in capitals; a stale ``filename`` takes no image of another file."""
    for split in ('train', 'val'):
        draw(tmp_path, f'JPEGImages/{split}/0.jpg')
        voc(tmp_path, f'Annotations/{split}/0')
    draw(tmp_path, 'more/images/1.JPG', 'more/images/2.jpg')
    voc(tmp_path, 'more/annotations/1', filename='2.jpg', label='one')
    voc(tmp_path, 'more/annotations/0', filename='2.jpg', label='gone')
    voc(tmp_path, 'more/annotations/2', label='two')
    (dataset,) = read_datasets(tmp_path)
    assert {p.path.relative_to(tmp_path).as_posix(): p.annotations[0].name for p in dataset.images.values()} == {
        'JPEGImages/train/0.jpg': 'x',
        'JPEGImages/val/0.jpg': 'x',
        'more/images/1.JPG': 'one',
        'more/images/2.jpg': 'two',
    }
    ((file, what),) = dataset.warnings
    assert file.endswith('annotations/0.xml') and 'other annotations of' in what and '2.jpg' in what


def test_labels_for_another_size_are_left_out(tmp_path):
    draw(tmp_path, '0.jpg', '1.jpg')
    draw(tmp_path, '2.jpg', size=(8, 6))
    coco(tmp_path / 'coco.json', ['0.jpg', '1.jpg', '2.jpg'])
    (dataset,) = read_datasets(tmp_path)
    converted = convert_dataset(dataset, 'detection', tmp_path / 'out')
    assert sum(converted.splits.values()) == 2
    assert '2.jpg: is 8 x 6, but coco.json says 16 x 12: left out' in said(dataset)
    coco(tmp_path / 'coco.json', ['0.jpg', '1.jpg'], size=(32, 24))
    with pytest.raises(InputError, match=r'none of 2 images can be used, the first: .*0.jpg: is 16 x 12, but coco'):
        convert_dataset(read_datasets(tmp_path)[0], 'detection', tmp_path / 'out')


def test_images_of_twelve_bits_are_left_out(tmp_path):
    """OpenCV loads the upper eight of sixteen bits."""
    for number, most in enumerate((4095, 65535)):
        path = tmp_path / f'{number}.png'
        Image.fromarray(np.linspace(0, most, 192).reshape(12, 16).astype(np.uint16)).save(path)
    coco(tmp_path / 'coco.json', ['0.png', '1.png'])
    (dataset,) = read_datasets(tmp_path)
    convert_dataset(dataset, 'detection', tmp_path / 'out')
    assert [what for _, what in dataset.warnings] == [
        'cannot be read (pixels go up to 4095 of 65535, which are loaded as 15 of 255: save it with 8 bits): left out'
    ]


def test_folders_of_classes_beside_others(tmp_path):
    """Runs of a training are no class, and images of no class do not hide those of classes."""
    draw(tmp_path, *(f'train/{name}/0.jpg' for name in ('cat', 'dog')), 'test/0.jpg', 'work_dirs/cat_classes/0.jpg')
    (dataset,) = read_datasets(tmp_path)
    assert sorted(image.label for image in dataset.images.values()) == ['cat', 'dog']
    assert said(dataset) == f'{tmp_path / "test"}: its images are in no folder of a class: left out'


def test_labels_of_which_none_can_be_used(tmp_path):
    draw(tmp_path, 'images/0.jpg')
    write(tmp_path, {'labels/0.txt': '0 nan 0.5 0.2 0.2\n', 'data.yaml': 'names: [a]\ntrain: images\n'})
    with pytest.raises(InputError, match=r"of its annotations can be used, the first: .*0\.txt: line 1: '0 nan 0\.5"):
        read_datasets(tmp_path)


def test_a_blank_path_is_not_the_folder_itself(tmp_path):
    assert located(' ', [tmp_path]) is None and located('', [tmp_path]) is None
    assert located('.', [tmp_path]) == tmp_path


# --- what must not take long, or be read otherwise than in training ---


@pytest.mark.parametrize('name', ['a/' * 1000 + '0.jpg', 'a' * 5000 + '/0.jpg', '/' + 'a/' * 64 + '0.jpg'])
def test_endless_paths_mean_nothing(tmp_path, monkeypatch, name):
    """Nothing is looked for on the disk."""
    draw(tmp_path, '0.jpg', '1.jpg')
    coco(tmp_path / 'a.json', [name, '1.jpg'])
    asked = []
    monkeypatch.setattr(images_on_disk, '_is_there', lambda path: asked.append(path) or path.exists())
    assert located(name, [tmp_path]) is None and Files(tmp_path).image(name, tmp_path) is None and not asked
    (dataset,) = read_datasets(tmp_path)
    assert [path.name for path in dataset.images] == ['1.jpg'] and name in dataset.missing[0]
    assert len(asked) < 10


def test_paths_below_nothing_are_not_followed_to_their_end(tmp_path, monkeypatch):
    monkeypatch.setattr(images_on_disk, 'head', lambda path: pytest.fail('nothing there holds a target'))
    asked, stat = [], Path.stat
    monkeypatch.setattr(Path, 'stat', lambda path, **options: asked.append(path) or stat(path, **options))
    path = tmp_path / 'none' / ('a/' * 50) / '0'
    assert followed(path) == path and len(asked) == len(tmp_path.parts)


def test_images_of_one_name_are_found_by_their_ends(tmp_path, monkeypatch):
    """No name is compared with each image, and files of one name are listed in one folder each."""
    draw(tmp_path, *(f'images/{number}/{side}/0.jpg' for number in range(20) for side in ('l', 'r')))
    (tmp_path / 'images/link').symlink_to(tmp_path / 'images/3', target_is_directory=True)
    files = Files(tmp_path)
    compared = []
    monkeypatch.setattr(images_on_disk, '_common_end', lambda one, other: compared.append(one) or 0)
    names = [f'/home/me/{number}/{side}/0.jpg' for number in range(20) for side in ('l', 'r')]
    locations = files.images(names, split='train')
    assert [location.relative_to(tmp_path / 'images').as_posix() for location in locations.values()] == [
        name.removeprefix('/home/me/') for name in names
    ]
    assert compared == []  # each image is of one name
    with pytest.raises(InputError, match=r'^l/0.jpg: 20 images are called so: '):
        files.image('l/0.jpg')
    assert files.image('link/l/0.jpg').resolve() == tmp_path / 'images/3/l/0.jpg'


def test_lists_of_many_equal_names_are_found_by_their_ends(tmp_path, monkeypatch):
    """No line is compared with the folder of each file."""
    paths = [tmp_path / str(number) / '0.xml' for number in range(30)]
    lines = [(('train', 'val')[number % 2], f'{number}/0.jpg') for number in range(30)]
    compared, equal = [], PurePath.__eq__
    monkeypatch.setattr(PurePath, '__eq__', lambda one, other: compared.append(one) or equal(one, other))
    claims = lists._claims(paths, lines)
    assert len(compared) <= len(paths) and list(map(claims.get, paths)) == [{split} for split, _ in lines]
    assert lists._claims(paths, [('test', '0')] * 3) == {path: {'test'} for path in paths}


def test_ends_of_paths():
    paths = [Path(name) for name in ('/a/b/0.jpg', '/a/c/0.jpg', '/d/b/0.jpg')]
    ends = ByEnd(paths)
    assert ends.paths[ends.end_of(Path('x/b/0.jpg'))] == [paths[0], paths[2]]
    assert ends.paths[ends.end_of(Path('/a/b/0.jpg'))] == [paths[0]]
    assert ends.paths[ends.end_of(Path('1.jpg'))] == paths
    folders = ByEnd(paths, of_folders=True)
    assert folders.paths[folders.end_of(Path('c'))] == [paths[1]]


def test_each_class_is_looked_up_at_once():
    class Name(str):
        compared = 0
        __hash__ = str.__hash__

        def __eq__(self, other):
            Name.compared += 1
            return str.__eq__(self, other)

    dataset = Dataset('COCO', Path())
    for number in [*range(300), *range(300)]:
        dataset.add_class(Name(f'class {number}'))
    assert dataset.classes == [f'class {number}' for number in range(300)] and Name.compared < 2000


def test_numbers_of_more_digits_than_any_id(tmp_path):
    """Those of equal remainders would be searched one by one, as Python hashes them."""
    many = 10**limits.NUMBER_LETTERS
    draw(tmp_path, '0.jpg', '1.jpg')
    coco(tmp_path / 'a.json', ['0.jpg', '1.jpg'])
    text = (tmp_path / 'a.json').read_text()
    write(tmp_path, {'a.json': text.replace('"id": 1, "file_name"', f'"id": {many}, "file_name"')})
    (dataset,) = read_datasets(tmp_path)
    assert f"'id' is {many}, of more than 20 digits: left out" in said(dataset) and len(dataset.images) == 1
    write(tmp_path, {'a.json': text.replace('"image_id": 1', f'"image_id": {many - 1}')})
    assert 'is not in the file' in said(read_datasets(tmp_path)[0])
    for key, is_read in ((many - 1, True), (many, False)):
        write(tmp_path, {'a.yaml': f'names: {{{key}: x}}\n'})
        if is_read:
            assert read_yaml(tmp_path / 'a.yaml') == {'names': {key: 'x'}}
        else:
            with pytest.raises(DatasetError, match=f'{key}.* has more than 20 digits'):
                read_yaml(tmp_path / 'a.yaml')


def encoded(kind, size=SIZE, mode='RGB', turn=1, xmp=False):
    """An image in a format, with its orientation in EXIF or in XMP."""
    file, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = turn
    options = {'exif': exif} if turn > 1 else {}
    if xmp:
        options = {'xmp': f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a tiff:Orientation="{turn}"/></x:xmpmeta>'.encode()}
    Image.new(mode, size).save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize(
    ('kind', 'options'),
    [
        *((kind, dict(turn=turn)) for kind in ('JPEG', 'PNG', 'TIFF', 'WEBP') for turn in range(1, 9)),
        ('JPEG', dict(turn=6, xmp=True)),
        *((kind, {}) for kind in ('GIF', 'DIB', 'BMP', 'PPM')),
        *(('TIFF', dict(mode=mode)) for mode in ('I', 'F', 'I;16', 'L', 'RGBA', 'CMYK', '1')),
        *(('PNG', dict(mode=mode)) for mode in ('P', '1', 'LA', 'RGBA')),
        ('PPM', dict(mode='F')),
    ],
)
def test_sizes_are_those_in_which_training_loads_images(tmp_path, kind, options):
    """A file that OpenCV does not load is left out by a message."""
    content = encoded(kind, **options)
    (tmp_path / '0.png').write_bytes(content)
    pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    image = AnnotatedImage(tmp_path / '0.png')
    said = 'pixels go up to 0 of 65535|pixels of float32|does not load: save it as PNG|is no image, or is damaged'
    if pixels is None or pixels.ndim < 3 or options.get('mode') in ('I;16', 'F'):
        assert image.size == (0, 0) and re.search(said, image.problem)
    else:
        assert image.size == pixels.shape[1::-1] and image.problem == ''


def test_images_are_decoded_as_training_does(tmp_path, monkeypatch):
    """An orientation that only shows when an image is decoded is found before a training."""
    draw(tmp_path, *(f'{number}.jpg' for number in range(4)))
    coco(tmp_path / 'a.json', [f'{number}.jpg' for number in range(4)])
    (tmp_path / '0.jpg').write_bytes(encoded('JPEG', turn=6))
    monkeypatch.setattr(image_files, '_turn_of', lambda image: 1)
    (dataset,) = read_datasets(tmp_path)
    converted = convert_dataset(dataset, 'detection', tmp_path / 'out', thorough=True)
    assert sum(converted.splits.values()) == 3
    assert said(dataset) == f'{tmp_path / "0.jpg"}: OpenCV loads it as 16 x 12 x 3, expected 12 x 16 x 3: left out'


@pytest.mark.parametrize('thorough', [False, True])
def test_images_without_objects_are_read_as_well(tmp_path, thorough):
    draw(tmp_path, *(f'images/{number}.jpg' for number in range(4)))
    write(tmp_path, {f'labels/{number}.txt': '0 0.5 0.5 0.2 0.2\n' * (number < 3) for number in range(4)})
    write(tmp_path, {'data.yaml': 'names: [a]\ntrain: images\n', 'images/3.jpg': ''})
    (dataset,) = read_datasets(tmp_path)
    assert sum(convert_dataset(dataset, 'detection', tmp_path / 'out', thorough=thorough).splits.values()) == 3
    ((file, what),) = dataset.warnings
    assert file == str(tmp_path / 'images/3.jpg') and what.startswith('cannot be read') and what.endswith('left out')


def test_files_outside_the_folder_are_reported(tmp_path):
    """They are used, and refused by nobody; links in the folder are of the folder."""
    draw(tmp_path, 'a/0.jpg', 'b/1.jpg', 'b/2.jpg', 'b/3.jpg', 'c/4.jpg')
    (tmp_path / 'a/3.jpg').symlink_to(tmp_path / 'b/3.jpg')
    (tmp_path / 'a/linked').symlink_to(tmp_path / 'c', target_is_directory=True)
    coco(tmp_path / 'a/a.json', ['0.jpg', '../b/1.jpg', str(tmp_path / 'b/2.jpg'), '3.jpg', 'linked/4.jpg'])
    (dataset,) = read_datasets(tmp_path / 'a', strict=True)
    assert len(dataset.images) == 5
    assert said(dataset) == f'{tmp_path / "a"}: 2 files lie outside the folder, the first: {tmp_path / "b/1.jpg"}'
    assert sum(convert_dataset(dataset, 'detection', tmp_path / 'out').splits.values()) == 5
    coco(tmp_path / 'a/a.json', [str(tmp_path / 'a/0.jpg'), '3.jpg'])
    assert read_datasets(tmp_path / 'a')[0].warnings == []
